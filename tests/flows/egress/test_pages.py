"""Web pages that are recorded: what is seen and heard of them, and what goes on in them.

What a page can do by itself is tested with the page (tests/actors/egress/page); here it is a task.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from actors.egress.worker import MOST_BROKEN
from tests.actors.egress.page.site import Site
from tests.flows.egress.kit import Studio, studio
from tests.flows.egress.media import apart, colour_at, kinds, pictures, plays, seconds
from tests.flows.kit import Json

PAGES: Json = {"egress": {"page_private": True}}
AS_ONE = 0.3
SMALL: Json = {"video": {"width": 320, "height": 180, "frameRate": 15, "bitrate": 300}}

# A flash in the upper half and a beep at the same moment of the sound's clock, each second.
BEEPING = """
<body style="margin:0;background:#000;overflow:hidden">
<div id=flash style="position:absolute;top:0;width:100%;height:50%"></div>
<div id=bar style="position:absolute;bottom:0;width:20px;height:50%;background:#888"></div>
<script>
const sound = new AudioContext(), flash = document.getElementById('flash').style;
const bar = document.getElementById('bar').style;
const source = sound.createBufferSource();
const buffer = sound.createBuffer(1, sound.sampleRate, sound.sampleRate);
const samples = buffer.getChannelData(0);
for (let i = 0; i < sound.sampleRate * 0.16; i++)
  samples[i] = 0.5 * Math.sin(2 * Math.PI * 1000 * i / sound.sampleRate);
source.buffer = buffer; source.loop = true; source.connect(sound.destination);
let began = 0;
function draw() {
  const now = sound.currentTime - began;
  flash.background = now % 1 < 0.16 ? '#fff' : '#000';
  bar.left = (now * 100 % 300) + 'px';
  requestAnimationFrame(draw);
}
sound.resume().then(() => { began = sound.currentTime; source.start(began); draw(); });
</script>"""

BUSY = """
alert('are you there?');
window.open('/elsewhere');
location.href = '/download';
fetch('http://192.0.2.1/secret').catch(() => 0);
console.log('hello', 'world');
const gl = document.createElement('canvas').getContext('webgl');
console.log(gl ? 'it has webgl' : 'it has no webgl');
setTimeout(() => { throw new Error('a mistake') }, 100);
setTimeout(() => console.log('switchboard:end the show is over'), 6000);"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A web site on this machine."""
    site = Site()
    yield site
    site.close()


async def show(it: Studio, url: str, **more: Any) -> str:
    return await it.begin(layout="freestyle", url=url, **{**SMALL, **more})


def of(it: Studio, name: str) -> list[psutil.Process]:
    """What runs of a page: it has the page's own folder in its command line or works in it."""
    appliance = psutil.Process(it.appliance.pid)
    return [p for p in appliance.children(recursive=True) if p.name().startswith(name)]


async def test_a_page_that_moves_and_beeps(tmp_path: Path, site: Site) -> None:
    """Sound and picture are one; the size is right to the corners."""
    async with studio(tmp_path, PAGES) as it:
        task = await show(it, site.page(BEEPING), format=["mp4", "hls"])
        await it.recorded(task, 6)
        view = await it.ended(task)
        assert view["cmd"] == "record"
        for kind in ("mp4", "hls"):
            path = it.file(view, kind)
            plays(path)
            found = kinds(path)
            assert (found["video"]["width"], found["video"]["height"]) == (320, 180)
            offsets = apart(path)
            print(f"page, sound to picture ({kind}): {[round(o, 2) for o in offsets]}")
            assert len(offsets) >= 3
            assert max(map(abs, offsets)) <= AS_ONE
        assert of(it, "chrom") + of(it, "Xvfb") + of(it, "pulseaudio") == []


@pytest.mark.parametrize(
    "deaths",
    [
        ["chrom"],
        pytest.param(["chrom", "Xvfb", "pulseaudio", "renderer"], marks=pytest.mark.soak),
    ],
    ids=len,
)
async def test_whatever_of_a_page_dies_it_goes_on_in_another_part(
    tmp_path: Path, site: Site, deaths: list[str]
) -> None:
    async with studio(tmp_path, PAGES) as it:
        task = await show(it, site.page(BEEPING), format=["mp4", "hls"])
        started = 0
        for number, name in enumerate(deaths, 1):
            event = await it.hear(task, "part_started", started, part=number)
            started = event["seq"]
            await it.recorded(task, 1.5, started)
            if name == "renderer":
                victims = [p for p in of(it, "chrom") if "--type=renderer" in p.cmdline()]
            else:
                # The oldest is the one that started the others.
                victims = sorted(of(it, name), key=lambda p: p.create_time())[:1]
            for victim in victims:
                it.kill(victim)
            broke = await it.hear(task, "recorder_broke", started)
            named = {"chrom": "Chromium", "renderer": "crashed"}.get(name, name)
            assert named in broke["data"]["reason"] or "encoder" in broke["data"]["reason"]
        event = await it.hear(task, "part_started", started, part=len(deaths) + 1)
        await it.recorded(task, 1.5, event["seq"])
        view = await it.ended(task)
        assert len(view["parts"]) == len(deaths) + 1
        whole = sum(part["seconds"] for part in view["parts"])
        assert whole >= 1.5 * len(view["parts"]) - 1
        assert abs(seconds(it.file(view)) - whole) <= 0.3 * len(view["parts"])
        text = it.file(view, "hls").read_text()
        assert text.count("#EXT-X-DISCONTINUITY\n") == len(deaths)
        assert of(it, "chrom") + of(it, "Xvfb") + of(it, "pulseaudio") == []


@pytest.mark.parametrize("webgl", [True, pytest.param(False, marks=pytest.mark.soak)])
async def test_what_a_page_does_is_told_and_does_not_disturb(
    tmp_path: Path, site: Site, webgl: bool
) -> None:
    """The address in either place, windows and downloads and what is blocked; its end ends all."""
    async with studio(tmp_path, PAGES | {"egress": {"page_hosts": ["127.0.0.1"]}}) as it:
        url = site.script(BUSY, "#0f0")
        where = {"url": url} if webgl else {"url": "", "web_recorder": {"url": url}}
        task = await it.begin(layout="freestyle", format="mp4", webGL=webgl, **{**SMALL, **where})
        view = await it.over(task)
        assert view["state"] == "STOPPED", view["error"]
        assert "the show is over" in view["message"] + view["reason"]
        frame = pictures(it.file(view))[-3]
        assert colour_at(frame, 0.02, 0.02) == colour_at(frame, 0.98, 0.98) == "lime"
        kinds_told = {e["type"].removeprefix("egress.page_") for e in it.told(task)}
        assert kinds_told >= {"dialog", "window", "download", "blocked", "console", "error"}
        said = [e["data"]["text"] for e in it.told(task, "page_console")]
        assert "hello world" in said
        assert ("it has webgl" if webgl else "it has no webgl") in said


async def test_what_is_not_allowed_is_refused_at_once(tmp_path: Path, site: Site) -> None:
    async with studio(tmp_path) as it:
        for url in (site.page("x"), "file:///etc/passwd", "http://[::1]/", "http://2130706433/"):
            answer = await it.ask("record", {"layout": "freestyle", "url": url})
            assert answer.status_code == 400, url
            assert set(answer.json()) == {"error", "request_id"}


async def test_a_page_that_is_over_before_it_is_ready_has_failed_at_once(
    tmp_path: Path, site: Site
) -> None:
    """Another part would see the same."""
    async with studio(tmp_path, PAGES) as it:
        task = await show(it, site.script("console.log('switchboard:end')"), ready="console")
        await it.hear(task, "failed")
        view = await it.view(task)
        assert view["error"] == "over before it was ready: the page said so"
        assert view["files"] == []
        assert "recorder_broke" not in {e["type"].partition(".")[2] for e in it.told(task)}


@pytest.mark.soak
async def test_a_page_that_never_gets_ready_fails_with_a_reason(tmp_path: Path, site: Site) -> None:
    """It is tried again for as often as anything that breaks at once."""
    async with studio(tmp_path, PAGES, within=300) as it:
        task = await show(it, site.url("/hang"), format="mp4")
        after = 0
        for _ in range(MOST_BROKEN):
            after = (await it.hear(task, "recorder_broke", after))["seq"]
        await it.hear(task, "failed", after)
        assert "not loaded" in (await it.view(task))["error"]
