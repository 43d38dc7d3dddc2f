"""When a page is ready, what is seen and heard of it then, and when it says that it is over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.actors.egress.page.kit import HEIGHT, NOBODY, WIDTH, heard, not_shown, seen, shown
from tests.actors.egress.page.site import Site

TONE = """
const audio = new AudioContext(), tone = audio.createOscillator();
tone.frequency.value = {pitch}; tone.connect(audio.destination); tone.start();
"""


@pytest.mark.parametrize(("width", "height"), [(WIDTH, HEIGHT), (160, 90)])
async def test_ready_by_load_its_picture_fills_the_frame_to_the_corners(
    tmp_path: Path, site: Site, width: int, height: int
) -> None:
    """Also when it is smaller than Chromium's windows are."""
    url = site.script("console.log(innerWidth, innerHeight, devicePixelRatio)", "#4080c0")
    async with shown(tmp_path, url, width=width, height=height) as one:
        picture = await seen(one.page, lambda picture: picture.at(9, 9) == "#4080c0")
        # No line at an edge, no bar at the top, no pointer in the middle.
        assert picture.all_of("#4080c0")
        await one.says(f"{width} {height} 1")
        assert len(one.page.groups) == 3
        assert all(os.getpgid(group) == group for group in one.page.groups)


async def test_ready_by_console_not_before_it_says_so(tmp_path: Path, site: Site) -> None:
    url = site.script(
        "await fetch('/slowly'); console.log('loaded'); console.log('switchboard:ready')"
    )
    async with shown(tmp_path, url, ready="console") as one:
        assert one.said[:1] == ["loaded"]


async def test_two_pages_neither_see_nor_hear_each_other(tmp_path: Path, site: Site) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    low = site.script(TONE.format(pitch=300), "#ff0000")
    high = site.script(TONE.format(pitch=2000), "#0000ff")
    async with shown(here, low) as one, shown(there, high) as other:
        assert set(one.page.groups).isdisjoint(other.page.groups)
        for page, colour, pitch in ((one.page, "#ff0000", 300), (other.page, "#0000ff", 2000)):
            assert (await seen(page, lambda p, c=colour: p.at(0, 0) == c)).all_of(colour)  # type: ignore[misc]
            _, found = await heard(page, lambda loudness, _: loudness > 0.5)
            assert found == pytest.approx(pitch, abs=20)


@pytest.mark.parametrize("webgl", [True, False])
async def test_webgl_only_when_asked_for(tmp_path: Path, site: Site, webgl: bool) -> None:
    url = site.script(
        """
        const gl = document.createElement('canvas').getContext('webgl2');
        if (!gl) return console.log('no webgl');
        gl.clearColor(0, 1, 0, 1); gl.clear(gl.COLOR_BUFFER_BIT);
        const pixel = new Uint8Array(4);
        gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
        console.log('pixel', pixel.join());
        """
    )
    async with shown(tmp_path, url, webgl=webgl) as one:
        await one.says("pixel 0,255,0,255" if webgl else "no webgl")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("console.log('switchboard:end all is said')", "the page said so: all is said"),
        ("history.pushState({}, '', '#2'); window.close()", "the page closed its window"),
    ],
)
async def test_it_says_that_it_is_over(
    tmp_path: Path, site: Site, script: str, reason: str
) -> None:
    site.go.clear()
    url = site.script(f"console.log('switchboard:ready'); await fetch('/go'); {script}")
    async with shown(tmp_path, url, ready="console") as one:
        site.go.set()
        assert await one.over() == reason


async def test_over_before_it_was_ready_is_not_ready(tmp_path: Path, site: Site) -> None:
    url = site.script("console.log('switchboard:end')")
    why = await not_shown(tmp_path, url, ready="console")
    assert why == "over before it was ready: the page said so"


# -- not ready -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/status/404", "answered with status 404"),
        ("/auth", "answered with status 401"),
        ("/download", "is a download, not a page"),
        ("/redirect?/status/404", "/status/404 answered with status 404"),
    ],
)
async def test_what_is_no_page_is_told(tmp_path: Path, site: Site, path: str, why: str) -> None:
    assert (await not_shown(tmp_path, site.url(path))).endswith(why)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:9/", "http://127.0.0.1:9/ cannot be shown: the port is not one for web"),
        (
            f"http://127.0.0.1:{NOBODY}/a?b",
            f"http://127.0.0.1:{NOBODY}/a cannot be shown: it refused",
        ),
        ("http://nobody.invalid/", "http://nobody.invalid/ cannot be shown: its name is not known"),
        ("file:///etc/passwd", "only pages at http and https addresses"),
        ("chrome://version", "only pages at http and https addresses"),
    ],
)
async def test_what_cannot_be_reached_is_told(tmp_path: Path, url: str, why: str) -> None:
    assert (await not_shown(tmp_path, url)).startswith(why)


@pytest.mark.parametrize(
    ("path", "ready", "why"),
    [
        ("/hang", "load", "the page was not loaded within 0.5 s"),
        ("/half", "load", "the page was not loaded within 0.5 s"),
        (
            "/other",
            "console",
            "the page did not write switchboard:ready to its console within 0.5 s",
        ),
    ],
)
async def test_a_page_that_does_not_get_ready_in_time_is_given_up(
    tmp_path: Path, site: Site, path: str, ready: str, why: str
) -> None:
    assert await not_shown(tmp_path, site.url(path), ready=ready, ready_timeout=0.5) == why


async def test_a_resource_that_hangs_delays_a_page_and_does_not_cost_it(
    tmp_path: Path, site: Site
) -> None:
    url = site.page("<body style='background:#00ff00'><img src=/hang>")
    async with shown(tmp_path, url, ready_timeout=0.5) as one:
        assert one.told("slow") == [{"text": "not everything of the page was loaded within 0.5 s"}]
        await seen(one.page, lambda picture: picture.all_of("#00ff00"))
