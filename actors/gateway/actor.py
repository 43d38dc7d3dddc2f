"""One gateway: performs what machine.py decides.

Everything that takes time (launching, stopping, commands, recordings) runs in the actor's nursery
and reports back as a message; a message of an earlier launch has another generation and is
dropped. The row and its event are written before anybody is answered.
"""

from __future__ import annotations

import secrets
import time
from typing import assert_never

import trio

from actors.gateway import machine, records
from actors.gateway.launching import Launching
from actors.gateway.machine import Effect, State
from actors.gateway.media import Media
from actors.gateway.messages import (
    CommandGateway,
    ControlEvent,
    GatewayMessage,
    GetGateway,
    Idle,
    Json,
    LaunchEnded,
    LaunchReady,
    LingerOver,
    ProfileChanged,
    RecordingFinished,
    Redial,
    RelaunchNow,
    RetryNow,
    Started,
    StartWithSlot,
    StopGateway,
    StopOverdue,
    Stopped,
    StreamChanged,
    TranscriptDone,
    TranscriptProgress,
    UseSlot,
)
from actors.gateway.prepare import check_request, profile_of
from actors.gateway.records import Record
from actors.gateway.runner import ContainerRunner
from actors.gateway.services import Services
from supervisor.actor import LATER
from supervisor.errors import Rejected
from supervisor.event import timestamp
from supervisor.intensity import Intensity, RestartWindow
from supervisor.log import logger
from supervisor.reply import Reply
from supervisor.spec import Cause, StopReason

# Whoever asks for a stop waits at most this long before being told `stopping`, in seconds.
STOP_ANSWER = 8.0

_TOLD = {
    State.STARTING: "gateway.starting",
    State.UP: "gateway.started",
    State.BACKOFF: "gateway.died",
    State.RESTARTING: "gateway.restarting",
    State.STOPPING: "gateway.stopping",
}


class GatewayActor(Launching):
    """A gateway that is live, or was a moment ago."""

    def __init__(self, gw_id: str, services: Services) -> None:
        super().__init__(gw_id, services)
        self._starters: list[Reply[Started]] = []
        self._stoppers: list[Reply[Stopped]] = []
        self._queued: tuple[StartWithSlot, Reply[Started]] | None = None

    async def on_start(self) -> None:
        """Take up what the row says; launch again what was meant to be up."""
        me = self.context.child.ref
        path, services = self.context.path, self._services
        self._media = Media(self._gw_id, services, path, me, self.post, self._held)
        record, calls = await services.store.read(records.load_all, self._gw_id)
        self._record = record
        if record is None:
            self._linger()
            return
        self._transcripts = await self._services.store.read(
            records.transcripts, self._gw_id, record.session
        )
        rule = self._rule()
        self._window = RestartWindow(Intensity(rule.limit, rule.seconds))
        self.spawn(self._media.finish_all)
        self.spawn(self._media.transcribe_pending)
        if record.state is State.DOWN:
            self._calls_unkept = bool(calls)
            await self._end_calls(f"{self._what()} ended")
            self._linger()
        elif record.state is State.STOPPING:
            # It was being stopped when the appliance died; its process died with it.
            await self._end_leftover_container(record)
            record.state = State.DOWN
            await self._resume("gateway.stopped")
            self._gone_down()
        else:
            record.state = State.RESTARTING
            record.node = self._services.node
            lives_on = self._outlives()
            if lives_on:
                self._calls.resume(calls, timestamp(), trio.current_time())
            await self._resume("gateway.restarting", calls_live_on=lives_on)
            self._begin_launch()

    async def _resume(self, kind: str, calls_live_on: bool = False) -> None:
        """Write down what a restart makes of the row; a disk that refuses must not hold it up."""
        assert self._record is not None
        data: Json = {"reason": f"{self._what()} was restarted"}
        over = None if calls_live_on else f"{self._what()} ended"
        kept = await self._write_or_log(records.resume, self._record, kind, data, over)
        self._calls_unkept = not kept

    def _what(self) -> str:
        """What it was that ended before this began."""
        return "its actor" if self.context.child.restarts else "the appliance"

    def _outlives(self) -> bool:
        """Does what it runs in go on when the appliance ends?"""
        assert self._record is not None
        profile = self._services.settings().profiles.get(self._record.main_app)
        return profile is not None and profile.use_container and profile.container is not None

    async def on_stop(self, reason: StopReason) -> None:
        """The appliance stops: end the process; the row keeps saying that it is to be up.

        A container is left running: it is adopted at the next start.
        """
        launch = self._launch
        self._stop_stream()
        if launch is not None:
            adopting = isinstance(launch.runner, ContainerRunner)
            if not adopting or reason.cause is not Cause.SHUTDOWN:
                await self._end_calls()
                await launch.stop(force=False)
        await self._end_streams()
        # What was recorded is finished at the next start: nobody is left to write its row.

    # -- messages -------------------------------------------------------------

    async def handle(self, message: GatewayMessage) -> object:  # noqa: C901, PLR0912 - one case each
        """See Actor.handle."""
        match message:
            case GetGateway():
                return self._view()
            case CommandGateway():
                return self._command(message)
            case StartWithSlot():
                return await self._start(message)
            case StopGateway(force=force):
                return await self._stop(force)
            case UseSlot(slot):
                await self._use_slot(slot)
            case LaunchReady(generation, detail):
                if generation == self._generation:
                    await self._ready(detail)
            case LaunchEnded():
                if message.generation == self._generation:
                    await self._ended(message)
            case RetryNow(generation):
                if generation == self._generation:
                    await self._step(machine.Retry())
            case StopOverdue(generation):
                if generation == self._generation:
                    self._answer_stop("stopping")
            case LingerOver(generation):
                if generation == self._generation:
                    self._linger_over()
            case ProfileChanged():
                self._profile_stale = True
                await self._renew_if_quiet()
            case RelaunchNow(generation):
                if generation == self._generation:
                    await self._replaced()
            case ControlEvent(generation, event):
                if generation == self._generation:
                    await self._control_event(event)
            case Redial(generation):
                if generation == self._generation and self._is(State.UP):
                    self.spawn(self._dial, generation)
            case RecordingFinished():
                await self._recording_finished(message)
            case TranscriptProgress(path, percent):
                self._transcribed(path, percent)
            case TranscriptDone():
                await self._transcript_done(message)
            case StreamChanged():
                await self._stream_changed(message)
            case _:
                assert_never(message)
        return None

    # -- start and stop -------------------------------------------------------

    async def _start(self, message: StartWithSlot) -> object:
        start = message.start
        record = self._record
        if record is not None and record.state is not State.DOWN and start.key is not None:
            if record.start_key == start.key and record.state is State.UP:
                return Started("working", self._gw_id)
            if record.start_key == start.key and record.state in (
                State.STARTING,
                State.RESTARTING,
                State.BACKOFF,
            ):
                self._starters.append(self.defer())
                return LATER
        state = record.state if record is not None else State.DOWN
        following, effects = machine.step(state, machine.Start())
        if Effect.REFUSE_RUNNING in effects:
            raise Rejected("already_running", f"gateway {self._gw_id!r} is {state.value} already")
        if Effect.QUEUE_START in effects:
            if self._queued is not None:
                raise Rejected("already_running", "another start waits for the stop to end")
            self._queued = (message, self.defer())
            return LATER
        await self._begin_start(message, following)
        self._starters.append(self.defer())
        return LATER

    async def _begin_start(self, message: StartWithSlot, state: State) -> None:
        start = message.start
        profile = profile_of(self._services, start.main_app)
        check_request(self._services, profile, start.request)
        before = self._record
        record = Record(
            gw_id=self._gw_id,
            state=state,
            main_app=start.main_app,
            room=start.room,
            request=start.request,
            start_key=start.key,
            slot=message.slot,
            node=self._services.node,
            detail="",
            session=time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3),
            recorded=0.0,
            transcript=0,
            restarts=0,
            changed=timestamp(),
        )
        self._record = record
        try:
            data = {"main_app": record.main_app, "room": record.room}
            await self._save("gateway.starting", data)
        except Rejected:
            self._record = before
            raise
        rule = profile.restart
        self._window = RestartWindow(Intensity(rule.limit, rule.seconds))
        self._failures = self._dial_failures = self._moves = 0
        self._shown = 0.0
        self._transcripts = {}
        self._profile_stale = False
        self._begin_launch()

    async def _stop(self, force: bool) -> object:
        record = self._record
        if record is None:
            raise Rejected("not_found", f"gateway {self._gw_id!r} was never started")
        if record.state is State.DOWN:
            return Stopped("stopped")
        self._stoppers.append(self.defer())
        await self._step(machine.Stop(force), {"reason": "asked for", "force": force})
        if self._stoppers and not force:
            self.spawn(self._stop_overdue, self._generation)
        return LATER

    async def _step(self, event: machine.Input, data: Json | None = None) -> None:
        """Let the machine decide, write it down, and do what it says."""
        record = self._record
        assert record is not None
        before = record.state
        record.state, effects = machine.step(before, event)
        if Effect.SAVE in effects:
            record.changed = timestamp()
            kind = _TOLD.get(record.state) or (
                "gateway.stopped" if before in (State.STOPPING, State.BACKOFF) else "gateway.failed"
            )
            if before is State.BACKOFF and record.state is State.DOWN:
                self._generation += 1
            try:
                await self._save(kind, data or {})
            except Rejected:
                refused = isinstance(event, machine.Stop) or before is State.STARTING
                if refused and not isinstance(event, machine.Exited):
                    record.state = before
                    raise
                # What has ended has ended, whether or not the disk takes it: the next start
                # finds the row as it was and launches again, as it would after a kill -9.
                logger.error("state_not_kept", actor=self.context.path, state=record.state.value)
        for effect in effects:
            self._perform(effect)
        if record.state is State.DOWN and Effect.SAVE in effects:
            self._gone_down()

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Effect.LAUNCH:
                self._begin_launch()
            case Effect.TERMINATE:
                self._end_launch(force=False)
            case Effect.KILL:
                self._end_launch(force=True)
            case Effect.SCHEDULE_RETRY:
                self.spawn(self._retry_later, self._generation)
            case Effect.ANSWER_STARTED:
                self._answer_start(Started("working", self._gw_id))
            case Effect.ANSWER_FAILED:
                assert self._record is not None
                self._answer_start(Rejected("start_failed", self._record.detail))
            case Effect.ANSWER_INTERRUPTED:
                self._answer_start(Rejected("start_failed", "it was stopped while it started"))
                if self._queued is not None:
                    self._queued[1].fail(Rejected("start_failed", "a stop came after it"))
                    self._queued = None
            case Effect.ANSWER_STOPPED:
                self._answer_stop("stopped")
            case Effect.SAVE | Effect.QUEUE_START | Effect.REFUSE_RUNNING | Effect.JOIN_STOP:
                pass  # done by the callers, which hold the message
            case _:
                assert_never(effect)

    def _answer_start(self, answer: Started | Rejected) -> None:
        starters, self._starters = self._starters, []
        for reply in starters:
            if isinstance(answer, Rejected):
                reply.fail(answer)
            else:
                reply.set(answer)

    def _answer_stop(self, state: str) -> None:
        stoppers, self._stoppers = self._stoppers, []
        for reply in stoppers:
            reply.set(Stopped(state))

    async def _stop_overdue(self, generation: int) -> None:
        await trio.sleep(STOP_ANSWER)
        await self.post(StopOverdue(generation))

    def _gone_down(self) -> None:
        self.context.os_pid = None
        queued, self._queued = self._queued, None
        self._linger()
        if queued is not None:
            # Through the mailbox, as if it had been asked for only now.
            self.context.child.ref.forward(*queued)

    def _linger_over(self) -> None:
        """Nothing has happened for a while: say so, and again after another while."""
        if self._record is not None and self._record.state is not State.DOWN:
            return
        # A start may be the next message: whoever is told of idleness must not act on it then.
        if not self._media.busy and not self.mailbox.depth:
            self._tell_router(Idle(self._gw_id, trio.current_time()))
        self._linger()

    def _linger(self) -> None:
        async def later(generation: int) -> None:
            await trio.sleep(self._services.settings().linger)
            await self.post(LingerOver(generation))

        self.spawn(later, self._generation)
