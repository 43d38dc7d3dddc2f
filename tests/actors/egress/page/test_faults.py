"""What dies or hangs under a page, and that nothing is left, however it ends.

Real kills. The appliance that is killed is a program of its own (host.py).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from actors.egress.page import Page, PageLost, PageRequest, browser, place, watch
from actors.egress.page.place import LINK
from supervisor import guardian
from supervisor.orphans import Registry
from tests.actors.egress.page.kit import everything, marked, nothing_is_left, seen, shown
from tests.actors.egress.page.site import Site
from tests.supervisor.procs import gone, registry

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (0, "the screen (Xvfb) ended by SIGKILL"),
        (1, "the sound server (pulseaudio) ended by SIGKILL"),
        (2, "Chromium ended by SIGKILL"),
    ],
)
async def test_a_part_that_is_killed_is_the_end_and_is_named(
    tmp_path: Path, site: Site, part: int, words: str
) -> None:
    async with shown(tmp_path, site.script("")) as one:
        os.kill(one.page.groups[part], signal.SIGKILL)
        assert await one.lost() == words


async def test_a_page_that_crashes_is_lost(tmp_path: Path, site: Site) -> None:
    async with shown(tmp_path, site.script("")) as one:
        for pid in one.pids("renderer"):
            os.kill(pid, signal.SIGKILL)
        assert (await one.lost()).startswith("the page crashed (")


async def test_a_browser_that_hangs_is_found(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "EVERY", 0.1)
    monkeypatch.setattr(watch, "BROWSER_TIMEOUT", 1.0)
    async with shown(tmp_path, site.script("")) as one:
        os.kill(one.page.groups[2], signal.SIGSTOP)
        assert await one.lost() == "the browser hangs: it did not answer for 1 s"


async def test_a_page_that_is_busy_for_ever_is_found(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "EVERY", 0.1)
    monkeypatch.setattr(watch, "PAGE_TIMEOUT", 1.0)
    async with shown(tmp_path, site.script("setTimeout(() => { while (true); })")) as one:
        assert await one.lost() == "the page hangs: it did not answer for 1 s"


async def test_a_program_that_is_not_there_is_told(tmp_path: Path, site: Site) -> None:
    page = Page(
        PageRequest(site.url("/"), 64, 64),
        tmp_path,
        registry(),
        "/test",
        everything,
        lambda _: None,
        program="/nonexistent/chromium",
    )
    with (
        trio.fail_after(20),
        pytest.raises(PageLost, match=r"Chromium cannot be started: .*No such"),
    ):
        await page.run()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def refusing() -> Iterator[str]:
    """Chromium as under a kernel that has no namespaces for it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    program = folder / "chromium"
    real = browser.find_program()
    program.write_text(f'#!/bin/sh\nexec {real} --disable-namespace-sandbox "$@"\n')
    program.chmod(0o755)
    yield str(program)
    shutil.rmtree(folder)


async def test_without_namespaces_it_runs_without_sandbox_and_says_so(
    tmp_path: Path, site: Site, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "PROGRAM", Path(refusing))
    async with shown(tmp_path, site.script("", "#0000ff")) as one:
        (warning,) = one.told("warning")
        assert warning["text"] == "the kernel refuses Chromium its sandbox: it runs without"
        # Also no bar that warns of it.
        assert (await seen(one.page, lambda p: p.at(9, 9) == "#0000ff")).all_of("#0000ff")


@pytest.mark.skipif(os.geteuid() != 0, reason="what only root has to be asked")
async def test_with_nobody_else_to_run_as_root_runs_it_and_says_so(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "USER", "no-such-user")
    async with shown(tmp_path, site.script("")) as one:
        assert one.told("warning") == [{"text": "Chromium runs as root without its sandbox"}]


# -- nothing is left ------------------------------------------------------------------------


class Interrupted(Registry):
    """Cancels whatever is under way when so many processes have been started."""

    def __init__(self, after: int) -> None:
        of = registry()
        super().__init__(of.instance, of.boot)
        self.scope = trio.CancelScope()
        self._left = after

    def add(self, pid: int, owner: str) -> int:
        self.count()
        return super().add(pid, owner)

    def count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.scope.cancel()


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
async def test_cancelled_while_it_starts_it_leaves_nothing(
    tmp_path: Path, site: Site, after: int
) -> None:
    """Before anything, after each process, and when the page has been asked for."""
    of = Interrupted(after)
    if after == 0:
        of.scope.cancel()

    def allowed(_url: str) -> bool:
        if len(of.groups) == 3:
            of.count()
        return True

    page = Page(
        PageRequest(site.url("/"), 320, 180), tmp_path, of, "/test", allowed, lambda _: None
    )
    with trio.fail_after(20):
        with of.scope:
            await page.run()
        assert of.scope.cancelled_caught
    assert of.groups == {}
    assert marked(of) == []
    assert list(tmp_path.iterdir()) == []


async def test_it_ends_soon(tmp_path: Path, site: Site) -> None:
    async with shown(tmp_path, site.script("")) as one:
        before = trio.current_time()
    nothing_is_left(one)
    assert trio.current_time() - before < 5.0


async def test_of_a_killed_appliance_no_process_is_left_and_no_file_after_the_next_page(
    tmp_path: Path, site: Site
) -> None:
    of = registry()
    arguments = [of.instance, str(tmp_path), site.script("", "#ffffff")]
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.actors.egress.page.host", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert program.stdout is not None
    try:
        with trio.fail_after(30):
            said = json.loads(await trio.to_thread.run_sync(program.stdout.readline))
            groups = said["groups"]
            # Also some that are in no group of ours.
            strays = [pid for pid in marked(of) if os.getpgid(pid) not in groups]
            assert strays
            pids = [*strays, *(pid for group in groups for pid in guardian.members(group))]
            assert len(pids) > 8
            program.kill()
            for pid in pids:
                await gone(pid)
        assert marked(of) == []
    finally:
        program.kill()
        program.wait(10)
        program.stdout.close()
    private = (tmp_path / LINK).readlink()
    assert private.exists()
    # In the next life of the same appliance, whichever recording it is.
    async with shown(tmp_path, site.script(""), of=Registry(of.instance, of.boot + 1)):
        assert not private.exists()


def test_only_what_earlier_lives_of_this_appliance_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    of = Registry("abc", 12)
    kept = ["switchboard-page-abc-12-x", "switchboard-page-abcd-1-x", "switchboard-page-x", "abc"]
    removed = ["switchboard-page-abc-1-x", "switchboard-page-abc-11-x"]
    for name in (*kept, *removed):
        (tmp_path / name).mkdir()
    # Somebody else's link is not followed.
    (tmp_path / "victim" / "below").mkdir(parents=True)
    (tmp_path / "switchboard-page-abc-2-link").symlink_to(tmp_path / "victim")
    made = place.prepare(tmp_path / "recording", of)
    left = {path.name for path in tmp_path.iterdir()}
    assert left >= {*kept, "victim", made.folder.name}
    assert not left & set(removed)
    assert (tmp_path / "victim" / "below").exists()
    made.remove()
    assert not made.folder.exists()
    assert list((tmp_path / "recording").iterdir()) == []
