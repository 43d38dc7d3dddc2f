"""What the tests of the queue share: it, in a tree on a real store, and workers that do as told.

Time is trio's, and jumps when a test says so; between two jumps it goes on as it does outside, so
that threads get theirs and deadlines end what hangs.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio
from trio.testing import MockClock

from actors import lease as leases
from actors.egress import records, schema
from actors.egress.finish import Made
from actors.egress.machine import Input
from actors.egress.machine import State as Machine
from actors.egress.messages import (
    CapacityView,
    EndRecording,
    GetCapacity,
    GetTask,
    GetWorking,
    Look,
    QueueMessage,
    ShowLarge,
    StopTaken,
    StopTask,
    Submit,
    Submitted,
    TaskView,
    WorkerEnded,
    WorkerMessage,
    Working,
)
from actors.egress.progress import Progress
from actors.egress.queue import QueueActor
from actors.egress.records import Task
from actors.egress.services import Services
from actors.egress.uploader import Poke
from actors.egress.worker import TaskWorker
from actors.lease import Clock, Lease
from config.load import load
from config.model import Channel, Egress, Source
from supervisor.actor import Actor
from supervisor.child import Child, State
from supervisor.event import Event
from supervisor.mailbox import Message
from supervisor.ref import Ref
from supervisor.spec import ChildSpec, StopReason, Strategy
from supervisor.store import PROBE_EVERY
from supervisor.tree import Place, Supervisor
from tests.supervisor.kit import Bench, Tree, reach
from tests.supervisor.procs import registry

APP = "app1"
SOURCES = {name: Source(url=f"test:{name}") for name in ("user1", "user2", "user3")}
# Whatever the machine that the tests run on has: only what a test sets is a limit.
SETTINGS = msgspec.structs.replace(
    load(None).egress,
    channels={"*": Channel(users=SOURCES)},
    capacity=msgspec.structs.replace(load(None).egress.capacity, cpu=1000, memory_mb=1e9),
    disk_free_mb=0,
)


class Nonsense(Message):
    """A message that no actor knows."""


class Hand(Actor[WorkerMessage]):
    """A worker that records nothing, and does what its test says."""

    def __init__(self, crew: Crew, task: Task, lease: Lease, services: Services) -> None:
        self.crew = crew
        self.task = task
        self.lease = lease
        self.services = services
        self.told: list[WorkerMessage] = []
        self.stopped: StopReason | None = None
        self.over = trio.Event()
        # A test that closes it has a worker that does not stop.
        self.may_stop = trio.Event()
        self.may_stop.set()
        self._crash = trio.Event()

    async def on_start(self) -> None:
        self.spawn(self._crash_when_told)
        self.crew.came(self)
        if self.task.state is Machine.STOPPING and self.crew.obedient:
            self.spawn(self.end)

    async def _crash_when_told(self) -> None:
        await self._crash.wait()
        raise ValueError("as told")

    async def handle(self, message: WorkerMessage) -> object:
        self.told.append(message)
        self.crew.stir()
        match message:
            case EndRecording():
                if self.crew.obedient:
                    await self.end()
            case GetWorking():
                return Working(Progress(frames=7), ["user2"], [])
            case ShowLarge():
                pass
        return None

    async def on_stop(self, reason: StopReason) -> None:
        self.stopped = reason
        self.crew.stir()
        await self.may_stop.wait()

    def crash(self) -> None:
        self._crash.set()

    async def end(self, what: Input = Input.DONE, reason: str = "", *made: Made) -> Task:
        """Keep the result, and tell the queue. Raises LeaseLost."""
        args = (self.lease, what, reason, "", list(made))
        task = await self.services.store.write(records.end, *args)
        told = WorkerEnded(task.task_id, self.lease.fence, task.state.value)
        self.services.queue.tell(told)
        self.over.set()
        self.stop_soon()
        return task

    @property
    def asked_to_end(self) -> bool:
        return EndRecording() in self.told


@dataclass
class Crew:
    """All workers of a test, in the order of their start."""

    hands: list[Hand] = field(default_factory=list)
    # Do they end when they are asked to?
    obedient: bool = True
    # Those who come from then on do the work themselves.
    real: bool = False
    on_start: Callable[[Hand], None] = lambda hand: None
    _changed: trio.Event = field(default_factory=trio.Event)

    def __call__(self, task: Task, lease: Lease, services: Services) -> Actor[WorkerMessage]:
        if self.real:
            return TaskWorker(task, lease, services)
        return Hand(self, task, lease, services)

    def came(self, hand: Hand) -> None:
        self.hands.append(hand)
        self.on_start(hand)
        self.stir()

    def stir(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once it holds of the workers."""
        with trio.fail_after(20):
            while not holds():
                await self._changed.wait()

    async def at(self, number: int) -> Hand:
        """The worker of that number (from 0), when it has come."""
        await self.until(lambda: len(self.hands) > number)
        return self.hands[number]


class Yard:
    """A store, a queue and its workers, as in main.py."""

    def __init__(self, folder: Path, bench: Bench, clock: MockClock, settings: Egress) -> None:
        self.bench = bench
        self.clock = clock
        self.crew = Crew()
        self.settings = settings
        self.remembered = 48.0
        self.events: list[Event] = []
        self._news = trio.Event()
        bench.on_publish = self._published
        self.workers = Supervisor()
        self.tree = Tree(
            [
                ChildSpec("workers", self._new_workers),
                ChildSpec("queue", lambda: QueueActor(self.services, self.workers, self.crew)),
            ],
            Strategy.REST_FOR_ONE,
        )
        self.queue: Ref[QueueMessage] = Ref(Place(lambda: self.tree.supervisor, "queue"))

        async def no_tail(_gw_id: str) -> tuple[Path, list[str]]:
            raise AssertionError("no worker here records")

        self.services = Services(
            store=bench.store,
            registry=registry(),
            settings=lambda: self.settings,
            remembered=lambda: self.remembered,
            folder=folder,
            node="here",
            boot=bench.database.boot,
            clock=Clock(),
            tail=no_tail,
            queue=self.queue,
            uploads=Poke(),
        )

    def _new_workers(self) -> Supervisor:
        self.workers = Supervisor()
        return self.workers

    def change(self, **fields: Any) -> None:
        """Other settings from now on; those of a section as a mapping."""
        for name, value in fields.items():
            if isinstance(value, dict) and name in ("limits", "capacity"):
                value = msgspec.structs.replace(getattr(self.settings, name), **value)
            self.settings = msgspec.structs.replace(self.settings, **{name: value})

    # -- what is asked of it ------------------------------------------------------

    async def submit(
        self,
        request_id: str = "r1",
        channel: str = "room",
        cmd: str = "record",
        app: str = APP,
        **payload: Any,
    ) -> Submitted:
        if cmd == "snapshot":
            payload.setdefault("interval_in_ms", 1000)
        if channel:
            payload["channel"] = channel
        hashed = json.dumps([cmd, payload], sort_keys=True)
        return await self.queue.ask(Submit(app, request_id, cmd, payload, hashed), 15.0)

    async def start(self, request_id: str = "r1", channel: str = "room", **more: Any) -> str:
        """The new task's id."""
        return (await self.submit(request_id, channel, **more)).task_id

    async def get(self, task_id: str, app: str = APP) -> TaskView:
        return await self.queue.ask(GetTask(app, task_id))

    async def stop(self, task_id: str, app: str = APP) -> StopTaken:
        return await self.queue.ask(StopTask(app, task_id))

    async def capacity(self) -> CapacityView:
        return await self.queue.ask(GetCapacity())

    def look(self) -> None:
        """Let it look after leases and ages now; it does so by itself every few seconds."""
        self.queue.tell(Look())

    async def disk_recovered(self) -> None:
        """Return when the store takes writes again: it finds out by itself, every few seconds."""
        with trio.fail_after(60):
            while self.bench.store.failing is not None:
                self.clock.jump(PROBE_EVERY)
                await trio.sleep(0.005)
        self.look()

    def pass_time(self, seconds: float) -> None:
        """Time passes, and it looks."""
        self.clock.jump(seconds)
        self.look()

    # -- what happens -------------------------------------------------------------

    def _published(self, events: list[Event]) -> None:
        self.events += events
        self._news.set()
        self._news = trio.Event()

    def told(self, task_id: str) -> list[str]:
        """The states of a task, as its events tell them."""
        words = ("enqueued", "processing", "stopping", "stopped", "failed", "timeout")
        found = [e.type.partition(".")[2] for e in self.events if e.subject == f"egress/{task_id}"]
        return [word for word in found if word in words]

    def data(self, kind: str, subject: str) -> dict[str, Any]:
        """The data of the last event of a type."""
        found = [e for e in self.events if (e.type, e.subject) == (f"egress.{kind}", subject)]
        data: dict[str, Any] = msgspec.json.decode(found[-1].data)
        return data

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once it holds of the events."""
        with trio.fail_after(20):
            while not holds():
                await self._news.wait()

    async def saw(self, task_id: str, *states: str) -> None:
        """Return once a task has gone this way, to the last state."""
        await self.until(lambda: len(self.told(task_id)) >= len(states))
        assert self.told(task_id) == list(states)

    async def lost(self, hand: Hand) -> None:
        """Return when a worker is gone and the queue knows it."""
        child = self.workers.child(hand.task.task_id)
        if child is not None and child.service is hand:
            await reach(child, State.ENDED, 20)
        await self.settled()

    async def settled(self) -> None:
        """Return when the queue has done what it was told, and has nothing to claim."""
        with trio.fail_after(20):
            # Each look ends with a claim of what fits; an ask after it comes behind it.
            for _ in range(3):
                self.look()
                await self.capacity()
                while self.bench.store.waiting:
                    await trio.sleep(0.005)
                await self.bench.store.write(lambda _tx: None)

    # -- life -------------------------------------------------------------------

    @property
    def child(self) -> Child:
        return self.tree.child("queue")

    async def crash_queue(self) -> None:
        """It meets a message that is none, and is started again."""
        self.queue.tell(Nonsense())  # type: ignore[arg-type]
        await reach(self.child, State.BACKOFF, 20)

    async def back(self) -> None:
        """Return when the queue runs again."""
        with trio.fail_after(20):
            while self.child.state is not State.RUNNING:
                self.clock.jump(1.0)
                await trio.sleep(0.005)


@asynccontextmanager
async def yard(
    folder: Path,
    clock: MockClock,
    settings: Egress = SETTINGS,
    *,
    real: bool = False,
    **change: Any,
) -> AsyncIterator[Yard]:
    """One that runs. Opened again on the same folder, it is the appliance's next boot.

    `real`: its workers do the work themselves.
    """
    clock.rate = 1.0
    async with trio.open_nursery() as nursery:
        migrations = [leases.migrations, schema.migrations]
        bench = await Bench(folder, migrations).start(nursery)
        found = Yard(folder, bench, clock, settings)
        found.change(**change)
        found.crew.real = real
        await found.tree.start(nursery)
        try:
            with trio.fail_after(900):
                yield found
        finally:
            for hand in found.crew.hands:
                hand.may_stop.set()
            await found.tree.stop()
            await bench.close()
        assert found.tree.error is None
