"""What a page does that nobody is there to answer: it is answered, told, and not in the picture."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actors.egress.page.request import MAX_TEXT, public, told
from actors.egress.page.told import MOST
from supervisor.orphans import VARIABLE
from tests.actors.egress.page.kit import NOBODY, marked, seen, shown
from tests.actors.egress.page.site import Site

RED = "#ff0000"


async def test_dialogs_are_dismissed_at_once(tmp_path: Path, site: Site) -> None:
    url = site.script(
        "console.log(alert('hello'), confirm('sure?'), prompt('what?', 'this')); "
        "setTimeout(() => console.log('on'))",
        RED,
    )
    async with shown(tmp_path, url) as one:
        await one.says("on")
        assert one.said[0] == "undefined false null"
        assert one.told("dialog") == [
            {"type": "alert", "text": "hello"},
            {"type": "confirm", "text": "sure?"},
            {"type": "prompt", "text": "what?"},
        ]
        assert (await seen(one.page, lambda p: p.at(0, 0) == RED)).all_of(RED)


async def test_what_would_cover_the_picture_or_leave_the_page_does_neither(
    tmp_path: Path, site: Site
) -> None:
    """Windows, downloads, printing, choosing a file, a program for an address, full screen."""
    target = site.url("/elsewhere?token=1")
    url = site.script(
        f"""
        console.log('window', window.open('{target}'));
        const link = (set) => {{
            const a = Object.assign(document.createElement('a'), set);
            document.body.append(a); a.click(); a.remove();
        }};
        link({{href: '{target}', target: '_blank'}});
        link({{href: '/download?secret=1', download: 'x.zip'}});
        location = 'mailto:a@b.example';
        setTimeout(() => {{
            print();
            Object.assign(document.createElement('input'), {{type: 'file'}}).click();
            document.body.requestFullscreen().catch(e => console.log('full', e.name));
            console.log('done');
        }}, 300);
        """,
        RED,
    )
    async with shown(tmp_path, url) as one:
        await one.says("done")
        await one.until("window", 2)
        # Without user, password, query.
        assert await one.until("download") == [{"url": site.url("/download")}]
        assert {str(data["url"]) for data in one.told("window")} <= {site.url("/elsewhere"), ""}
        assert (await seen(one.page, lambda p: p.at(0, 0) == RED)).all_of(RED)
        assert one.outcome is None


async def test_what_needs_permission_is_denied(tmp_path: Path, site: Site) -> None:
    url = site.script(
        """
        const states = [];
        for (const name of ['camera', 'microphone', 'geolocation', 'notifications'])
            states.push((await navigator.permissions.query({name})).state);
        console.log(states.join());
        navigator.geolocation.getCurrentPosition(
            () => console.log('found'), e => console.log('not found', e.code));
        """
    )
    async with shown(tmp_path, url) as one:
        await one.says("denied,denied,denied,denied")
        await one.says("not found 1")


async def test_a_page_may_go_elsewhere_also_when_it_asks_whether_to_leave(
    tmp_path: Path, site: Site
) -> None:
    there = site.script("console.log('there')", "#00ff00")
    url = site.script(
        f"onbeforeunload = e => {{ e.preventDefault(); e.returnValue = 'x'; }};"
        f"setTimeout(() => location = '{there}', 50)"
    )
    async with shown(tmp_path, url) as one:
        await one.says("there")
        await seen(one.page, lambda picture: picture.all_of("#00ff00"))


async def test_a_page_that_goes_to_where_nothing_is_is_lost(tmp_path: Path, site: Site) -> None:
    url = site.script(f"setTimeout(() => location = 'http://127.0.0.1:{NOBODY}/x?y', 50)")
    async with shown(tmp_path, url) as one:
        why = f"the page went to http://127.0.0.1:{NOBODY}/x: it refused the connection"
        assert await one.lost() == why


# -- what is told ----------------------------------------------------------------------


async def test_console_and_errors_are_told_without_secrets_and_cut(
    tmp_path: Path, site: Site
) -> None:
    url = site.script(
        """
        console.warn('see https://u:p@a.example/x?token=1#y', {a: 1}, [1]);
        console.log('x'.repeat(100000));
        setTimeout(() => { throw new Error('nobody caught') });
        fetch('/status/500?secret=1');
        """
    )
    async with shown(tmp_path, url) as one:
        console = await one.until("console", 2)
        assert console[0] == {
            "level": "warning",
            "text": "see https://a.example/x Object Array(1)",
        }
        assert len(str(console[1]["text"])) == MAX_TEXT
        errors = await one.until("error", 2)
        assert any("nobody caught" in str(data["text"]) for data in errors)
        assert any(data["url"] == site.url("/status/500") for data in errors)
        assert "secret" not in repr(one.events)


async def test_a_flood_in_the_console_is_left_out_and_its_end_is_heard(
    tmp_path: Path, site: Site
) -> None:
    url = site.script(
        """
        let n = 0;
        setInterval(() => { for (let i = 0; i < 1000; i++) console.log('line', n++) }, 10);
        setTimeout(() => { alert('more'); console.log('switchboard:end', 'enough') }, 1500);
        """
    )
    async with shown(tmp_path, url) as one:
        assert await one.over() == "the page said so"
    # Twenty in ten seconds; a slow machine may take more than one time of ten.
    assert MOST <= len(one.told("console")) <= 3 * MOST
    assert one.told("dialog") == [{"type": "alert", "text": "more"}]
    left_out = one.told("left_out")
    assert {data["kind"] for data in left_out} == {"console"}
    assert sum(data["count"] for data in left_out if isinstance(data["count"], int)) > 1000


async def test_a_page_that_says_too_much_at_once_is_lost(tmp_path: Path, site: Site) -> None:
    url = site.script("setTimeout(() => { throw new Error('x'.repeat(20 << 20)) })")
    async with shown(tmp_path, url) as one:
        assert await one.lost() == "the page said more than 16 MiB at once"


async def test_what_it_tells_us_by_our_own_function_is_not_trusted(
    tmp_path: Path, site: Site
) -> None:
    url = site.script(
        """
        for (const said of ['', '{', '7', '{"type": 1}', '{"type": "left_out", "count": "x"}'])
            __switchboard(said);
        console.log('on');
        """
    )
    async with shown(tmp_path, url) as one:
        await one.says("on")
        assert one.outcome is None


@pytest.mark.parametrize(
    ("url", "as_told"),
    [
        ("https://user:pass@a.example:8443/p?q=1#f", "https://a.example:8443/p"),
        ("http://[::1]:80/", "http://[::1]:80/"),
        ("wss://a.example/x?token=1", "wss://a.example/x"),
        ("data:text/html,secret", "data:…"),
        ("blob:https://a.example/1", "blob:…"),
        ("about:blank", "about:blank"),
        ("https://a.example:port/", "an address that cannot be read"),
        ("https://a.example/" + "x" * 1000, "https://a.example/" + "x" * 481 + "…"),
    ],
)
def test_an_address_is_told_without_what_may_be_secret(url: str, as_told: str) -> None:
    assert public(url) == as_told
    assert told(f"at {url}, there").startswith("at ")


# -- as whom it runs ------------------------------------------------------------------------


async def test_it_runs_in_its_sandbox_and_not_as_root(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIP_PASSWORD", "secret")
    async with shown(tmp_path, site.script("")) as one:
        assert one.told("warning") == []
        renderers = one.pids("renderer")
        assert renderers
        for pid in renderers:
            status = Path(f"/proc/{pid}/status").read_text()
            # Number and numbers in namespaces of its own.
            assert len(status.partition("NSpid:")[2].splitlines()[0].split()) > 1
        for group in one.page.groups:
            assert Path(f"/proc/{group}").stat().st_uid != 0
        # Chromium overwrites its own; those of its helpers are as it got it.
        helper = next(pid for pid in marked(one.of) if pid not in one.page.groups)
        environment = Path(f"/proc/{helper}/environ").read_bytes()
        assert b"secret" not in environment
        names = {entry.partition(b"=")[0].decode() for entry in environment.split(b"\0") if entry}
        assert names <= {
            *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", VARIABLE),
            *("DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"),
            *("PULSE_SERVER", "PULSE_COOKIE", "SWITCHBOARD_PAGE"),
        }
        # It cannot start programs, whatever address a page opens.
        assert not Path(one.page._place.path("no-programs")).exists()
        assert os.fsencode(one.page._place.path("no-programs")) in environment
