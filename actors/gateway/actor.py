"""One gateway: performs what machine.py decides.

Everything that takes time (launching, stopping, commands, recordings) runs in the actor's nursery
and reports back as a message; a message of an earlier launch has another generation and is
dropped. The row and its event are written before anybody is answered.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVarTuple, assert_never

import msgspec
import trio

from actors.gateway import commands, machine, recording, records, stream
from actors.gateway.calls import Calls
from actors.gateway.launch import Launch, result_detail
from actors.gateway.machine import Effect, State
from actors.gateway.media import Media
from actors.gateway.messages import (
    Acknowledged,
    CommandGateway,
    ControlEvent,
    GatewayMessage,
    GatewayView,
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
    RouterMessage,
    SlotTaken,
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
from actors.gateway.prepare import check_request, prepare, profile_of
from actors.gateway.records import Record
from actors.gateway.runner import ContainerRunner, ProcessRunner, remove_container
from actors.gateway.services import Services
from actors.gateway.transcript import text_path
from config.model import RestartRule, Stream
from supervisor.actor import LATER, Actor
from supervisor.backoff import Backoff
from supervisor.errors import ActorDown, MailboxFull, Rejected
from supervisor.event import timestamp
from supervisor.intensity import Intensity, RestartWindow
from supervisor.log import logger
from supervisor.orphans import drop, note
from supervisor.reply import Reply
from supervisor.spec import Cause, StopReason
from supervisor.transaction import Transaction

Ts = TypeVarTuple("Ts")

# Whoever asks for a stop waits at most this long before being told `stopping`, in seconds.
STOP_ANSWER = 8.0
# A call that ends at once is not dialled again at once.
REDIAL = Backoff(first=1.0, cap=30.0, healthy_after=10.0)
# How often a start whose ports turn out to be taken is tried with others.
MAX_MOVES = 3

_TOLD = {
    State.STARTING: "gateway.starting",
    State.UP: "gateway.started",
    State.BACKOFF: "gateway.died",
    State.RESTARTING: "gateway.restarting",
    State.STOPPING: "gateway.stopping",
}


class GatewayActor(Actor[Any]):
    """A gateway that is live, or was a moment ago."""

    mailbox_size = 128

    def __init__(self, gw_id: str, services: Services) -> None:
        self._gw_id = gw_id
        self._services = services
        self._record: Record | None = None
        self._launch: Launch | None = None
        self._generation = 0
        self._calls = Calls()
        self._starters: list[Reply[Started]] = []
        self._stoppers: list[Reply[Stopped]] = []
        self._queued: tuple[StartWithSlot, Reply[Started]] | None = None
        self._failures = 0
        self._up_since: float | None = None
        self._window = RestartWindow(Intensity())
        self._rng = random.Random()  # noqa: S311 - jitter
        self._streaming: trio.CancelScope | None = None
        self._dialled_at = 0.0
        self._dial_failures = 0
        self._moves = 0
        self._shown = 0.0
        self._transcripts: dict[str, tuple[float, int]] = {}
        self._profile_stale = False
        self._media: Media

    async def on_start(self) -> None:
        """Take up what the row says; launch again what was meant to be up."""
        me = self.context.child.ref
        self._media = Media(self._gw_id, self._services, self.context.path, me, self.post)
        record = self._record = await self._services.store.read(records.load, self._gw_id)
        if record is None:
            return
        self._transcripts = await self._services.store.read(
            records.transcripts, self._gw_id, record.session
        )
        self.spawn(self._media.finish_all)
        self.spawn(self._media.transcribe_pending)
        if record.state is State.DOWN:
            self._linger()
        elif record.state is State.STOPPING:
            # It was being stopped when the appliance died; its process died with it.
            await self._end_leftover_container(record)
            record.state = State.DOWN
            await self._save("gateway.stopped", {"reason": "the appliance was restarted"})
            self._gone_down()
        else:
            record.state = State.RESTARTING
            record.node = self._services.node
            await self._save("gateway.restarting", {"reason": "the appliance was restarted"})
            self._begin_launch()

    async def on_stop(self, reason: StopReason) -> None:
        """The appliance stops: end the process; the row keeps saying that it is to be up.

        A container is left running: it is adopted at the next start.
        """
        launch = self._launch
        if launch is not None:
            adopting = isinstance(launch.runner, ContainerRunner)
            if not adopting or reason.cause is not Cause.SHUTDOWN:
                await launch.stop(force=False)
            # What was recorded is finished at the next start: nobody is left to write its row.

    # -- messages -------------------------------------------------------------

    async def handle(self, message: GatewayMessage) -> object:  # noqa: C901 - one case each
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
            case StopOverdue():
                self._answer_stop("stopping")
            case LingerOver(generation):
                if generation == self._generation and self._is(State.DOWN):
                    self._tell_router(Idle(self._gw_id))
            case ProfileChanged():
                self._profile_stale = True
                await self._renew_if_quiet()
            case RelaunchNow(generation):
                if generation == self._generation and self._is(State.RESTARTING):
                    self._begin_launch()
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
            case StreamChanged(generation, state, detail):
                if generation == self._generation:
                    await self._announce(f"gateway.stream_{state}", {"detail": detail})
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
            self.spawn(self._stop_overdue)
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
                if not isinstance(event, machine.Exited):
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

    async def _stop_overdue(self) -> None:
        await trio.sleep(STOP_ANSWER)
        await self.post(StopOverdue())

    def _gone_down(self) -> None:
        self._calls.clear()
        self.context.os_pid = None
        queued, self._queued = self._queued, None
        if queued is None:
            self._linger()
            return
        # Through the mailbox, as if it had been asked for only now.
        self.context.child.ref.forward(*queued)

    # -- the launch -----------------------------------------------------------

    def _begin_launch(self) -> None:
        self._generation += 1
        self.spawn(self._run_launch, self._generation)

    def _end_launch(self, force: bool) -> None:
        launch = self._launch
        if launch is None:
            # Not begun: it waits for its turn, and finds that it is not wanted any more.
            generation = self._generation
            self.spawn(self.post, LaunchEnded(generation, "stopped before it began", None))
            return
        self.spawn(launch.stop, force)

    async def _run_launch(self, generation: int) -> None:
        """Launch and wait for the end. Runs beside the loop: what it finds, it posts."""
        record = self._record
        assert record is not None
        path = self.context.path

        async def on_event(event: Json) -> None:
            await self.post(ControlEvent(generation, event))

        try:
            launch = prepare(record, self._services, path, on_event)
        except (Rejected, OSError) as error:
            await self.post(LaunchEnded(generation, str(error), None))
            return
        turns = self._services.starting
        await turns.acquire_on_behalf_of(launch)
        waiting = True

        def give_turn() -> None:
            nonlocal waiting
            if waiting:
                waiting = False
                turns.release_on_behalf_of(launch)

        async def on_ready() -> None:
            give_turn()
            await self._note(launch)
            await self.post(LaunchReady(generation, result_detail(launch.result)))

        try:
            if generation != self._generation or record.state is State.STOPPING:
                return
            self._launch = launch
            outcome = await launch.run(on_ready)
        finally:
            give_turn()
        await self._forget(launch)
        await self.post(LaunchEnded(generation, outcome.reason, outcome.exit, outcome.port_taken))

    async def _note(self, launch: Launch) -> None:
        """Keep the process by pid and start time, for the case that we are killed."""
        runner = launch.runner
        if isinstance(runner, ProcessRunner) and runner.pid:
            self.context.os_pid = runner.pid
            pid, started = runner.identity
            boot, name = self._services.registry.boot, launch.profile.command[0]
            await self._write_or_log(note, pid, started, boot, self.context.path, name)

    async def _forget(self, launch: Launch) -> None:
        if isinstance(launch.runner, ProcessRunner) and launch.runner.pid:
            await self._write_or_log(drop, *launch.runner.identity)

    async def _ready(self, detail: str) -> None:
        record, launch = self._record, self._launch
        assert record is not None
        if launch is None or record.state not in (State.STARTING, State.RESTARTING):
            return
        record.detail = detail
        self._up_since = trio.current_time()
        data: Json = {"main_app": record.main_app, "pid": launch.runner.pid}
        if launch.profile.control == "ctrl_tcp":
            data["sip"] = self._sip()
        if isinstance(launch.runner, ContainerRunner):
            data["adopted"] = launch.runner.adopted
        await self._step(machine.Ready(), data)
        if record.request.get("dial") and launch.channel is not None:
            self.spawn(self._dial, self._generation)

    async def _ended(self, message: LaunchEnded) -> None:
        record = self._record
        assert record is not None
        self._launch = None
        self.context.os_pid = None
        self._stop_stream()
        for kind, data in self._calls.clear():
            await self._announce(kind, data)
        if message.port_taken and self._may_move(record):
            return
        stopping = record.state is State.STOPPING
        record.detail = "stopped" if stopping else message.reason
        again = not stopping and self._may_retry(message)
        if record.state in (State.UP, State.RESTARTING):
            record.restarts += 1
        await self._step(machine.Exited(again), {"reason": record.detail})
        self.spawn(self._media.finish_all)

    def _may_move(self, record: Record) -> bool:
        """Its ports are taken while it starts: ask for others. False when that was tried enough."""
        if record.state not in (State.STARTING, State.RESTARTING) or record.slot is None:
            return False
        if self._moves >= MAX_MOVES:
            return False
        self._moves += 1
        self._tell_router(SlotTaken(self._gw_id, record.slot))
        return True

    def _may_retry(self, message: LaunchEnded) -> bool:
        """By the profile's policy, and only so often; also counts the failure."""
        record = self._record
        assert record is not None
        if record.state not in (State.UP, State.RESTARTING):
            return False
        rule = self._rule()
        clean = message.exit is not None and message.exit.status == 0
        if rule.policy == "temporary" or (rule.policy == "transient" and clean):
            return False
        now = trio.current_time()
        up_for = now - self._up_since if self._up_since is not None else 0.0
        self._up_since = None
        self._failures = self._backoff().failures_after(self._failures, up_for)
        if self._window.allow(now):
            return True
        record.detail = (
            f"given up after {rule.limit} restarts within {rule.seconds:g} s: {record.detail}"
        )
        return False

    async def _retry_later(self, generation: int) -> None:
        await trio.sleep(self._backoff().delay(self._failures, self._rng))
        await self.post(RetryNow(generation))

    async def _use_slot(self, slot: int | None) -> None:
        """The router's answer to SlotTaken: launch again with other ports."""
        record = self._record
        if record is None or record.state not in (State.STARTING, State.RESTARTING):
            return
        if slot is None:
            record.detail = "its ports are taken, and there are no others"
            await self._step(machine.Exited(again=False), {"reason": record.detail})
            return
        record.slot = slot
        await self._services.store.write(records.save, record)
        self._begin_launch()

    async def _end_leftover_container(self, record: Record) -> None:
        profile = self._services.settings().profiles.get(record.main_app)
        if profile is not None and profile.container is not None and profile.use_container:
            await remove_container(profile, record.gw_id, self._services.registry)

    # -- calls and media ------------------------------------------------------

    async def _control_event(self, event: Json) -> None:
        told = self._calls.take(event, trio.current_time())
        if told:
            await self._write_or_log(records.tell_all, self._gw_id, told)
        for kind, _data in told:
            if kind == "gateway.call_established":
                self._start_stream()
            elif kind == "gateway.call_closed":
                if not self._calls.talking:
                    self._stop_stream()
                self.spawn(self._media.finish_all)
                self._redial_later()
                await self._renew_if_quiet()

    async def _dial(self, generation: int) -> None:
        launch, record = self._launch, self._record
        if launch is None or launch.channel is None or record is None:
            return
        self._dialled_at = trio.current_time()
        try:
            await launch.channel.command("dial", str(record.request["dial"]))
        except Rejected as error:
            await self._announce("gateway.dial_failed", {"reason": str(error)})
            if generation == self._generation:
                self._redial_later()

    def _redial_later(self) -> None:
        record = self._record
        if (
            record is None
            or not record.request.get("dial")
            or record.request.get("loop") is not True
        ):
            return
        lasted = trio.current_time() - self._dialled_at
        self._dial_failures = REDIAL.failures_after(self._dial_failures, lasted)
        self.spawn(self._redial, REDIAL.delay(self._dial_failures, self._rng), self._generation)

    async def _redial(self, seconds: float, generation: int) -> None:
        await trio.sleep(seconds)
        await self.post(Redial(generation))

    def _start_stream(self) -> None:
        launch, record = self._launch, self._record
        if launch is None or record is None or launch.profile.stream is None or self._streaming:
            return
        self._streaming = trio.CancelScope()
        self.spawn(self._stream, self._streaming, launch.profile.stream, self._generation)

    async def _stream(self, scope: trio.CancelScope, settings: Stream, generation: int) -> None:
        record = self._record
        assert record is not None
        folder = self._services.session_folder(self._gw_id, record.session)

        async def report(state: str, detail: str) -> None:
            await self.post(StreamChanged(generation, state, detail))

        with scope:
            url = str(record.request.get("rtmp_dst", ""))
            registry, path = self._services.registry, self.context.path
            await stream.stream(folder, settings, url, registry, path, report)
        await report("ended", "")

    def _stop_stream(self) -> None:
        if self._streaming is not None:
            self._streaming.cancel()
            self._streaming = None

    async def _recording_finished(self, done: RecordingFinished) -> None:
        record = self._record
        assert record is not None
        if done.error is not None:
            await self._announce(
                "gateway.recording_failed", {"file": done.dump, "reason": done.error}
            )
            return
        wanted = "pending" if record.request.get("transcript") is True else "none"
        record.recorded = await self._services.store.write(
            records.add_recording, done, record, wanted
        )
        recording.discard(Path(done.dump))
        if wanted == "pending":
            self._transcripts.setdefault(done.path, (done.seconds, 0))
            self.spawn(self._media.transcribe_pending)

    def _transcribed(self, path: str, percent: int) -> None:
        """Note how much of one recording is done; the row has the share of all of them."""
        record = self._record
        assert record is not None
        seconds, _before = self._transcripts.get(path, (1.0, 0))
        self._transcripts[path] = (seconds, percent)
        whole = sum(s for s, _ in self._transcripts.values()) or 1.0
        record.transcript = int(sum(s * p for s, p in self._transcripts.values()) / whole)

    async def _transcript_done(self, done: TranscriptDone) -> None:
        record = self._record
        assert record is not None
        if done.error is None:
            self._transcribed(done.path, 100)
            data: Json = {"file": str(text_path(Path(done.path)))}
        else:
            record.detail = f"the transcript failed: {done.error}"
            data = {"recording": done.path, "reason": done.error}
        state = "done" if done.error is None else "failed"
        await self._services.store.write(records.set_transcript, record, done.path, state, data)

    # -- commands and status --------------------------------------------------

    def _command(self, message: CommandGateway) -> object:
        launch = self._launch
        if self._record is None:
            raise Rejected("not_found", f"gateway {self._gw_id!r} was never started")
        if launch is None or self._record.state is not State.UP:
            state = self._record.state.value
            raise Rejected("stopped", f"gateway {self._gw_id!r} is {state}: it takes no commands")
        self.spawn(self._execute, message, launch, self.defer())
        return LATER

    async def _execute(
        self, message: CommandGateway, launch: Launch, reply: Reply[Acknowledged]
    ) -> None:
        sender = f"sip:{self._gw_id}@{launch.address}:{launch.ports.sip}"
        try:
            received = await commands.execute(message.payload, launch, self._calls, sender)
        except Rejected as error:
            reply.fail(error)
        else:
            reply.set(Acknowledged(True, received))

    def _view(self) -> GatewayView:
        record, launch = self._record, self._launch
        if record is None:
            raise Rejected("not_found", f"gateway {self._gw_id!r} was never started")
        recorded = record.recorded
        if launch is not None and launch.profile.record:
            folder = self._services.session_folder(record.gw_id, record.session)
            recorded = max(recorded + recording.recorded(folder), self._shown)
            self._shown = recorded
        return msgspec.structs.replace(
            records.view(record),
            recording_duration=records.clock_text(recorded),
            sip=self._sip() if record.state is State.UP else None,
            pid=launch.runner.pid if launch is not None else None,
            calls=self._calls.views(),
        )

    # -- small things ---------------------------------------------------------

    def _is(self, state: State) -> bool:
        return self._record is not None and self._record.state is state

    def _sip(self) -> str | None:
        launch = self._launch
        if launch is None or launch.profile.control != "ctrl_tcp":
            return None
        return f"sip:{self._gw_id}@{launch.address}:{launch.ports.sip}"

    def _rule(self) -> RestartRule:
        assert self._record is not None
        profile = self._services.settings().profiles.get(self._record.main_app)
        return profile.restart if profile is not None else RestartRule()

    def _backoff(self) -> Backoff:
        rule = self._rule()
        return Backoff(first=rule.backoff_first, cap=rule.backoff_cap)

    async def _renew_if_quiet(self) -> None:
        """Its profile has changed: launch again with the new one, unless a call is in progress."""
        if self._profile_stale and self._is(State.UP) and not len(self._calls):
            self._profile_stale = False
            record, launch = self._record, self._launch
            assert record is not None
            if launch is not None and record.main_app in self._services.settings().profiles:
                record.state = State.RESTARTING
                await self._save("gateway.restarting", {"reason": "its profile was changed"})
                # Its end belongs to a generation that is over: it is not a death.
                self._generation += 1
                self._launch = None
                self.spawn(self._replace, launch, self._generation)

    async def _replace(self, launch: Launch, generation: int) -> None:
        await launch.stop(force=False)
        await self.post(RelaunchNow(generation))

    def _linger(self) -> None:
        async def later(generation: int) -> None:
            await trio.sleep(self._services.settings().linger)
            await self.post(LingerOver(generation))

        self.spawn(later, self._generation)

    def _tell_router(self, message: RouterMessage) -> None:
        router = self._services.router
        try:
            if router is not None:
                router.tell(message)
        except (ActorDown, MailboxFull) as error:
            # It reads the rows of live gateways when it starts, and sees the same there.
            logger.warning("router_not_told", actor=self.context.path, error=str(error))

    async def _save(self, type: str, data: Json) -> None:
        record = self._record
        assert record is not None
        await self._services.store.write(records.save_and_tell, record, type, data)

    async def _announce(self, type: str, data: Json) -> None:
        await self._write_or_log(records.tell_all, self._gw_id, [(type, data)])

    async def _write_or_log(self, fn: Callable[[Transaction, *Ts], object], *args: *Ts) -> None:
        """A write that nobody waits for the answer of: a failing disk must not end the gateway."""
        try:
            await self._services.store.write(fn, *args)
        except Rejected as error:
            logger.error("not_kept", actor=self.context.path, error=str(error))
