"""One launch of a gateway: run it, see that it gets ready, keep its control channel, watch it.

The actor holds one of these for each generation and hears of it by messages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from actors.gateway.calls import CALLS_ASKED, CALLS_NOW, missed
from actors.gateway.control import ChannelBroken, CtrlTcp, Lines
from actors.gateway.messages import Json
from actors.gateway.ports import Assigned
from actors.gateway.render import scrub
from actors.gateway.runner import CannotStart, ContainerRunner, ProcessRunner
from config.model import Profile
from supervisor.errors import Rejected
from supervisor.log import logger
from supervisor.process import Exit

CONNECT_EVERY = 0.05

_PORT_TAKEN = re.compile(r"address (already )?in use", re.IGNORECASE)


class NotReady(Exception):
    """It runs and does not get ready; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a launch ended, in words and as an exit, if it came to one."""

    reason: str
    exit: Exit | None
    port_taken: bool


class Launch:
    """Created by the actor, run in its nursery."""

    def __init__(
        self,
        profile: Profile,
        gw_id: str,
        address: str,
        ports: Assigned,
        on_event: Callable[[Json], Awaitable[None]],
    ) -> None:
        self.profile = profile
        self.gw_id = gw_id
        self.address = address
        self.ports = ports
        self.runner: ProcessRunner | ContainerRunner
        self.channel: CtrlTcp | None = None
        self.lines: Lines | None = None
        self.result: Json | None = None
        # Values that must not be told on when the gateway prints them.
        self.hidden: list[str] = []
        # Files of two calls, of which that has been told.
        self.shared: set[Path] = set()
        self._on_event = on_event
        self._line_seen = trio.Event()
        self._failed: str | None = None
        self._port_taken = False
        self._pattern = re.compile(profile.ready.pattern) if profile.ready.pattern else None
        self._stopping = False
        self._ended = trio.Event()
        # Set when nothing of this launch is left, also not in the engine.
        self.over = trio.Event()
        # There is something that can be stopped, or there will be nothing.
        self._begun = trio.Event()
        # Something the watch should look at: the end, or a broken channel.
        self._stir = trio.Event()

    # -- output ---------------------------------------------------------------

    def take_line(self, line: str) -> None:
        """Every line that it prints."""
        if _PORT_TAKEN.search(line):
            self._port_taken = True
        ready = self.profile.ready
        if ready.when == "line" and self._pattern is not None and self._pattern.search(line):
            self._line_seen.set()
        if not line.startswith("{"):
            return
        try:
            message = msgspec.json.decode(line, type=dict)
        except (msgspec.DecodeError, RecursionError):
            return
        if self.lines is not None and "id" in message:
            self.lines.take(message)
        elif self.result is None:
            self.result = message
            if str(message.get("status", "ok")).lower() in ("error", "failed"):
                self._failed = str(message.get("error") or message.get("message") or line)
            self._line_seen.set()

    # -- life -----------------------------------------------------------------

    async def run(self, on_ready: Callable[[], Awaitable[None]]) -> Outcome:
        """Launch it, call `on_ready` once it is, and return when it is gone."""
        how: Exit | None = None
        reason: str | None = None
        try:
            async with trio.open_nursery() as nursery:
                done: list[Exit] = []
                await nursery.start(self._run_to_end, done)
                self._begun.set()
                try:
                    with trio.fail_after(self.profile.ready.timeout):
                        await self._get_ready(nursery, done)
                except trio.TooSlowError:
                    reason = f"not ready within {self.profile.ready.timeout:g} s"
                except NotReady as error:
                    reason = str(error)
                if reason is None and not done:
                    await on_ready()
                    reason = await self._watch(nursery, done)
                if not done:
                    await self.runner.stop(self.profile.stop.grace, force=True)
                await self._ended.wait()
                nursery.cancel_scope.cancel()
                how = done[0]
        except* CannotStart as group:
            reason = f"cannot be started: {group.exceptions[0]}"
        self._begun.set()
        if self.lines is not None:
            self.lines.close()
        return self._outcome(reason, how)

    async def _run_to_end(
        self, done: list[Exit], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        done.append(await self.runner.run(task_status))
        self._ended.set()
        self._stir.set()

    def _outcome(self, reason: str | None, how: Exit | None) -> Outcome:
        last = self.runner.last_lines()
        taken = self._port_taken or _PORT_TAKEN.search(reason or "") is not None
        words = [part for part in (reason, str(how) if how else None) if part]
        text = "; ".join(words) or "gone"
        if last and not (how is not None and how.asked and reason is None):
            text += f" (last lines: {' | '.join(last)})"
        return Outcome(scrub(text, self.hidden), how, taken)

    # -- readiness ------------------------------------------------------------

    async def _get_ready(self, nursery: trio.Nursery, done: list[Exit]) -> None:
        problem: NotReady | None = None
        async with trio.open_nursery() as waiting:

            async def until_ended() -> None:
                await self._ended.wait()
                waiting.cancel_scope.cancel()

            async def until_ready() -> None:
                nonlocal problem
                try:
                    await self._wait_ready(nursery)
                except NotReady as error:
                    # Out of the nursery it would come as a group.
                    problem = error
                waiting.cancel_scope.cancel()

            waiting.start_soon(until_ended)
            waiting.start_soon(until_ready)
        if problem is not None:
            raise problem
        if not done and self._failed is not None:
            raise NotReady(f"it reported an error: {self._failed}")

    async def _wait_ready(self, nursery: trio.Nursery) -> None:
        match self.profile.ready.when:
            case "control":
                await self._open_channel(nursery)
                if isinstance(self.runner, ContainerRunner) and self.runner.adopted:
                    await self._look_for_ended_calls()
            case "line" | "result":
                await self._line_seen.wait()
            case "running":
                await trio.sleep(self.profile.ready.seconds)

    async def _open_channel(self, nursery: trio.Nursery) -> None:
        """Connect, and see that it is this gateway that answers: its SIP port is in the answer."""
        while True:
            try:
                stream = await trio.open_tcp_stream(self.address, self.ports.control)
            except OSError:
                await trio.sleep(CONNECT_EVERY)
                continue
            channel = CtrlTcp(stream, self._on_event)
            nursery.start_soon(self._keep_channel, channel)
            try:
                answer = await channel.command("reginfo", "", timeout=3.0)
            except Rejected as error:
                raise NotReady(f"the control channel: {error}") from error
            if f":{self.ports.sip}" not in str(answer.get("data", "")):
                raise NotReady(
                    f"another program answers on control port {self.ports.control}"
                    " (address already in use)"
                )
            self.channel = channel
            await self._look_for_missed_call(channel)
            return

    async def _keep_channel(self, channel: CtrlTcp) -> None:
        try:
            await channel.run()
        except ChannelBroken as error:
            if not self._stopping:
                logger.warning("control_broke", gw_id=self.gw_id, reason=str(error))
        self._stir.set()

    # -- watching -------------------------------------------------------------

    async def _watch(self, nursery: trio.Nursery, done: list[Exit]) -> str | None:
        """Return when it is gone, or with the reason to end it: it does not answer any more."""
        if self.profile.control != "ctrl_tcp":
            await self._ended.wait()
            return None
        watch = self.profile.watch
        missed = 0
        while not done:
            with trio.move_on_after(watch.every if missed == 0 else min(watch.every, 1.0)):
                await self._stir.wait()
            self._stir = trio.Event()
            if done or self._stopping:
                await self._ended.wait()
                return None
            try:
                await self._see_alive(nursery, watch.timeout)
                missed = 0
            except (Rejected, NotReady) as error:
                missed += 1
                if missed >= watch.misses:
                    return f"it does not answer: {error}"
        return None

    async def _see_alive(self, nursery: trio.Nursery, timeout: float) -> None:
        """Ask it something; open the channel again if that broke."""
        channel = self.channel
        if channel is not None and channel.open:
            await channel.command("reginfo", "", timeout=timeout)
            return
        try:
            with trio.fail_after(timeout):
                await self._open_channel(nursery)
                await self._look_for_ended_calls()
        except trio.TooSlowError:
            raise NotReady("the control channel cannot be opened again") from None

    async def _look_for_missed_call(self, channel: CtrlTcp) -> None:
        """Calls are answered before anybody hears of events: ask baresip for the one it has."""
        try:
            answer = await channel.command("callstat", "", timeout=3.0)
        except Rejected as error:
            raise NotReady(f"the control channel: {error}") from error
        event = missed(str(answer.get("data", "")))
        if event is not None:
            await self._on_event(event)

    async def _look_for_ended_calls(self) -> None:
        """Events that came while the channel was away are lost; the list of calls is not."""
        assert self.channel is not None
        await self._on_event({"type": CALLS_ASKED})
        try:
            answer = await self.channel.command("listcalls", "", timeout=3.0)
        except Rejected as error:
            raise NotReady(f"the control channel: {error}") from error
        await self._on_event({"type": CALLS_NOW, "data": str(answer.get("data", ""))})

    async def stop(self, force: bool) -> None:
        """End it: the actor is told by the end of `run`."""
        self._stopping = True
        self._stir.set()
        await self._begun.wait()
        await self.runner.stop(self.profile.stop.grace, force)


def result_detail(result: Json | None) -> str:
    """What a script printed when it was up, for the status."""
    return "" if result is None else json.dumps(result, ensure_ascii=False)[:500]
