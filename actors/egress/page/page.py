"""A page from its start to its end: starts the parts in order, and ends them in order.

Whatever happens, nothing is left when `run` returns: no process, also none that left its group, no
socket of the screen, no file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from actors.egress.page import place
from actors.egress.page.browser import Browser, find_program
from actors.egress.page.devtools import CommandFailed, DevTools, DevToolsLost
from actors.egress.page.gate import Gate
from actors.egress.page.parts import Parts
from actors.egress.page.request import NeverReady, PageEvent, PageLost, PageRequest, public
from actors.egress.page.screen import Screen
from actors.egress.page.sound import Sound
from actors.egress.page.told import Told
from actors.egress.page.verdict import Verdict
from actors.egress.page.visit import Visit
from supervisor.orphans import Registry
from supervisor.process import Process

# Each part must say within this that it is there, in seconds; a cold disk is slow.
START_TIMEOUT = 20.0
# The screen removes its socket when it is asked to end.
SCREEN_GRACE = 1.0
# For the end of everything.
ENDING = 10.0
# How a browser ended is known a moment after its connection has closed.
MOMENT = 1.0


class Page:
    """One page. See the package for what it is made of, `PageRequest` for when it is ready."""

    def __init__(
        self,
        wanted: PageRequest,
        folder: Path,
        registry: Registry,
        owner: str,
        allowed: Callable[[str], bool],
        report: Callable[[PageEvent], None],
        program: str | None = None,
        reaches: Callable[[str, str], bool] = lambda _host, _address: True,
    ) -> None:
        """Nothing is started yet. `folder` is that of the recording.

        `allowed` is called with each address that is about to be fetched: http and https, and
        `wss://host:port/` or `ws://host:port/` for WebSockets to where nothing was fetched before.
        `reaches` with host and address: may a name lead to that, be it allowed by itself?
        """
        self.wanted = wanted
        self._folder = folder
        self._registry = registry
        self._owner = owner
        self._allowed = allowed
        self._program = program or find_program()
        self._tell = Told(report)
        self._verdict = Verdict()
        self._parts = Parts(registry, self._verdict)
        self._gate = Gate(
            allowed, lambda url: self._tell("blocked", url=url, type="WebSocket"), reaches
        )
        self._shown = False
        # From the start of `run` on.
        self._place: place.Place
        self._screen: Screen
        self._sound: Sound
        self._devtools: DevTools | None = None

    # -- for who grabs it -------------------------------------------------------------

    def video_input(self, frame_rate: int) -> list[str]:
        """Arguments of ffmpeg for the picture, at so many frames a second."""
        return self._screen.video_input(frame_rate)

    @property
    def audio_input(self) -> list[str]:
        """Arguments of ffmpeg for the sound: 48 kHz, two channels."""
        return self._sound.audio_input()

    @property
    def environment(self) -> dict[str, str]:
        """What ffmpeg needs in its environment for these."""
        return {**self._sound.environment, "XAUTHORITY": str(self._screen.authority)}

    @property
    def groups(self) -> list[int]:
        """The process groups that run now."""
        return self._parts.groups

    # -- life ------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[Page] = trio.TASK_STATUS_IGNORED) -> str:
        """Show it until it says that it is over; returns its reason. Started when it is ready.

        Raises PageLost when it does not get ready or something of it dies. Cancelled, it ends
        everything first.
        """
        if public(self.wanted.url).partition(":")[0] not in ("http", "https"):
            raise PageLost("only pages at http and https addresses can be shown")
        if not self._allowed(self.wanted.url):
            raise PageLost(f"the allow list does not have {public(self.wanted.url)}")
        try:
            self._place = await trio.to_thread.run_sync(place.prepare, self._folder, self._registry)
        except OSError as error:
            raise PageLost(f"its folder cannot be made: {error}") from error
        try:
            self._screen = Screen(self._place, self.wanted.width, self.wanted.height)
            self._sound = Sound(self._place)
            await self._run(task_status)
        except OSError as error:
            raise PageLost(f"its files cannot be written: {error}") from error
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._place.remove)
        assert self._verdict.reason is not None
        if self._verdict.is_lost:
            raise PageLost(self._verdict.reason)
        if not self._shown:
            raise NeverReady(f"over before it was ready: {self._verdict.reason}")
        return self._verdict.reason

    async def _run(self, task_status: trio.TaskStatus[Page]) -> None:
        async with trio.open_nursery() as nursery:
            try:
                with self._verdict.scope:
                    await self._show(nursery)
                    self._shown = True
                    task_status.started(self)
                    await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + ENDING):
                    await self._end()
                self._parts.give_up()
                nursery.cancel_scope.cancel()

    async def _show(self, nursery: trio.Nursery) -> None:
        """Return when it is ready; when it is lost, do not return."""
        try:
            with trio.fail_after(START_TIMEOUT):
                await nursery.start(self._gate.run)
                browser, process = await self._start_parts(nursery)
        except OSError as error:
            await self._verdict.fail(f"its files cannot be written: {error}")
        except trio.TooSlowError:
            await self._verdict.fail(f"its parts did not start within {START_TIMEOUT:g} s")
        visit = Visit(self.wanted, self._gate, self._tell, self._verdict)
        try:
            self._devtools = await DevTools.connect(
                nursery, browser.port, browser.resource, visit.on_event
            )
            nursery.start_soon(self._listen, self._devtools, process)
            await visit.open(self._devtools)
        except (CommandFailed, DevToolsLost) as error:
            await self._lost(str(error), process)
            await trio.sleep_forever()
        nursery.start_soon(visit.watch)
        # Lost in the meantime, it goes no further than here.
        await trio.lowlevel.checkpoint()

    async def _start_parts(self, nursery: trio.Nursery) -> tuple[Browser, Process]:
        screen, sound = self._screen, self._sound
        await self._parts.start(
            nursery,
            "the screen (Xvfb)",
            screen.command(self._owner),
            screen.take_line,
            grace=SCREEN_GRACE,
        )
        await self._parts.start(
            nursery, "the sound server (pulseaudio)", sound.command(self._owner), sound.take_line
        )
        await screen.ready.wait()
        await sound.ready.wait()
        if self._place.runs_as_root:
            self._tell("warning", text="Chromium runs as root without its sandbox")
        else:
            browser, process = await self._start_browser(nursery, sandbox=True)
            if browser.port:
                return browser, process
            self._tell("warning", text="the kernel refuses Chromium its sandbox: it runs without")
        return await self._start_browser(nursery, sandbox=False)

    async def _start_browser(
        self, nursery: trio.Nursery, *, sandbox: bool
    ) -> tuple[Browser, Process]:
        """Return when it listens, or has ended because there can be no sandbox."""
        browser = Browser(self._place, self.wanted, self._screen, self._sound, self._program)

        def expected() -> bool:
            refused = sandbox and not browser.port and browser.sandbox_refused
            if refused:
                browser.decided.set()
            return refused

        command = browser.command(self._owner, self._gate, sandbox)
        process = await self._parts.start(
            nursery, "Chromium", command, browser.take_line, expected=expected
        )
        await browser.decided.wait()
        self._gate.forbidden_port = browser.port
        return browser, process

    async def _listen(self, devtools: DevTools, browser: Process) -> None:
        try:
            await devtools.run()
        except DevToolsLost as error:
            await self._lost(str(error), browser)

    async def _lost(self, reason: str, browser: Process) -> None:
        """Give this as the reason, if the browser has not ended: that says more, and is told."""
        with trio.move_on_after(MOMENT):
            await browser.wait()
        if browser.exit is None:
            self._verdict.lost(reason)

    async def _end(self) -> None:
        self._tell.close()
        await self._parts.end("=".join(self._place.variable).encode())
        self._screen.remove_socket()
        if self._devtools is not None:
            await self._devtools.close()
