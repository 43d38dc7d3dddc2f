"""A gateway's process: launched, noted, found ready, found gone, tried again."""

from __future__ import annotations

import trio

from actors.gateway import machine, recording, records
from actors.gateway.launch import Launch, result_detail
from actors.gateway.machine import State
from actors.gateway.messages import (
    ControlEvent,
    Json,
    LaunchEnded,
    LaunchReady,
    RetryNow,
    SlotTaken,
    Started,
)
from actors.gateway.prepare import prepare
from actors.gateway.records import Record
from actors.gateway.render import scrub
from actors.gateway.runner import ContainerRunner, ProcessRunner, remove_container
from actors.gateway.talking import Talking
from supervisor.errors import Rejected
from supervisor.orphans import drop, note

# How often a start whose ports turn out to be taken is tried with others.
MAX_MOVES = 3
# Events of a call whose sound has just begun.
_OPENING = ("CALL_PROGRESS", "CALL_ESTABLISHED")


class Launching(Talking):
    """The side that is about the process."""

    async def _step(self, event: machine.Input, data: Json | None = None) -> None:
        """Let the machine decide, write it down, and do what it says (see actor.py)."""
        raise NotImplementedError

    def _answer_start(self, answer: Started | Rejected) -> None:
        """Answer all who wait for the start (see actor.py)."""
        raise NotImplementedError

    def _begin_launch(self) -> None:
        self._generation += 1
        self._profile_stale = False
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

        folder = self._services.session_folder(self._gw_id, record.session)

        async def on_event(event: Json) -> None:
            if event.get("type") in _OPENING:
                # Here and at once: the next call in this second must find the names free.
                recording.take(folder)
            await self.post(ControlEvent(generation, event))

        try:
            launch = prepare(record, self._services, path, on_event)
        except (Rejected, OSError) as error:
            moved = isinstance(error, Rejected) and error.code == "slot_gone"
            await self.post(LaunchEnded(generation, str(error), None, port_taken=moved))
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
            detail = scrub(result_detail(launch.result), launch.hidden)
            await self.post(LaunchReady(generation, detail))

        try:
            if not self._wanted(generation, record):
                return  # it waited for its turn, and was stopped or overtaken meanwhile
            self._launch = launch
            outcome = await launch.run(on_ready)
        finally:
            give_turn()
            launch.over.set()
        await self._forget(launch)
        await self.post(LaunchEnded(generation, outcome.reason, outcome.exit, outcome.port_taken))

    def _wanted(self, generation: int, record: Record) -> bool:
        """Is a launch of this generation still what the gateway's state asks for?"""
        if generation != self._generation or record is not self._record:
            return False
        return record.state in (State.STARTING, State.RESTARTING)

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
            if not launch.runner.adopted:
                await self._end_calls("its container ended while nobody saw it")
        try:
            await self._step(machine.Ready(), data)
        except Rejected as error:
            # Nobody may be told that it is up when a restart would not know of it.
            self._answer_start(error)
            self.spawn(launch.stop, False)
            return
        # An adopted container may be in a call already, and in the one that it is to dial.
        if self._calls.talking:
            self._start_stream()
        if record.request.get("dial") and launch.channel is not None and not len(self._calls):
            self.spawn(self._dial, self._generation)
        await self._renew_if_quiet()

    async def _ended(self, message: LaunchEnded) -> None:
        record = self._record
        assert record is not None
        self._launch = None
        self.context.os_pid = None
        self._stop_stream()
        await self._end_calls()
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
        return self._tell_router(SlotTaken(self._gw_id, record.slot))

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

    async def _replaced(self) -> None:
        """What ran under the old profile is gone: launch again, or be down if a stop came."""
        # A call may have come after it was told to end.
        self.spawn(self._media.finish_all)
        if self._is(State.RESTARTING):
            self._launch = None
            self._begin_launch()
        elif self._is(State.STOPPING):
            await self._ended(LaunchEnded(self._generation, "stopped", None))

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
        await self._write_or_log(records.save, record)
        self._begin_launch()

    async def _end_leftover_container(self, record: Record) -> None:
        profile = self._services.settings().profiles.get(record.main_app)
        if profile is not None and profile.container is not None and profile.use_container:
            await remove_container(profile, record.gw_id, self._services.registry)
