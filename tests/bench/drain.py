"""1,000 queued tasks, each claimed under a lease, done by a worker that does nothing, and ended.

Beside a Redis list that coredis drains, one element at a time: kept in memory only, and with every
write synced to disk, which is what the queue does.
"""

from __future__ import annotations

import math
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import coredis
import msgspec
import trio

from actors import lease as leases
from actors.egress import records, schema
from actors.egress.machine import Input
from actors.egress.messages import QueueMessage, Submit, WorkerEnded
from actors.egress.queue import QueueActor
from actors.egress.records import Task
from actors.egress.services import Services
from actors.egress.tail import Tails
from actors.egress.uploader import Poke
from actors.lease import Clock, Lease
from config.load import load
from config.model import Cost, Egress
from supervisor.bus import EventLog
from supervisor.database import Database
from supervisor.orphans import Registry
from supervisor.ref import Ref
from supervisor.service import Context, Service
from supervisor.spec import Cause, ChildSpec, StopReason
from supervisor.store import Store
from supervisor.system import System
from supervisor.tree import Place, Root, Supervisor
from tests.bench.kit import Options, Rounds, Row, folder


def run(options: Options) -> list[Row]:
    """See the module."""
    count = options.pick(20, 1000)
    with folder() as place, _redis(place, "no") as memory, _redis(place, "always") as synced:
        rounds = Rounds(
            options.pick(1, 5),
            partial(_queue, place, count),
            partial(_list, memory, count),
            partial(_list, synced, count),
        )
    name = f"{count:,} queued tasks claimed, done, ended"
    return [
        Row(
            name, rounds.median(0), "task/s", "a Redis list in memory, coredis", rounds.ratio(0, 1)
        ),
        Row(
            name, rounds.median(0), "task/s", "a Redis list, each write synced", rounds.ratio(0, 2)
        ),
    ]


class Trivial(Service):
    """A worker that is done at once."""

    def __init__(self, task: Task, lease: Lease, services: Services) -> None:
        self._task = task
        self._lease = lease
        self._services = services

    async def run(self, context: Context) -> None:
        """See Service.run."""
        context.ready()
        task = await self._services.store.write(
            records.end, self._lease, Input.DONE, "completed", "", []
        )
        ended = WorkerEnded(task.task_id, self._lease.fence, task.state.value)
        self._services.queue.tell(ended)


def _queue(place: Path, count: int) -> float:
    return trio.run(_drain, place / secrets.token_hex(4), count)


async def _drain(state: Path, count: int) -> float:
    database = Database(state, [leases.migrations, schema.migrations])
    log = EventLog(database.epoch, database.head, database.first)
    store = Store(database, log.publish)
    settings = load(None).egress

    def limited(tasks: int) -> Egress:
        """Settings by which so many tasks may be at work at once."""
        limits = msgspec.structs.replace(settings.limits, tasks=tasks, page=tasks, waiting=10**6)
        free = Cost(cpu=0.001, memory_mb=0.001, disk_kb=0.001)
        return msgspec.structs.replace(
            settings, limits=limits, costs={"page": free}, claim_timeout=600.0
        )

    force = [limited(0)]
    top: Supervisor
    queue: Ref[QueueMessage] = Ref(Place(lambda: top, "queue"))
    services = Services(
        store, Registry(database.instance, database.boot), lambda: force[0], lambda: 48.0, state,
        "bench", database.boot, Clock(), Tails(store, state).find, queue, Poke(),
    )  # fmt: skip
    members = Supervisor()
    top = Supervisor(
        [
            ChildSpec("store", store.writer),
            ChildSpec("workers", lambda: members),
            ChildSpec("queue", lambda: QueueActor(services, members, Trivial)),
        ]
    )
    root = Root(top, System())
    took = math.nan
    async with trio.open_nursery() as nursery:
        nursery.start_soon(root.run)
        await root.child.settled()

        async def submit(number: int) -> None:
            # A channel's tasks go one after another; pages have none.
            page = {"layout": "freestyle", "url": "http://page.example/"}
            message = Submit("bench", f"r{number}", "record", page, str(number))
            await queue.ask(message, 60.0)

        async with trio.open_nursery() as submitting:
            for number in range(count):
                submitting.start_soon(submit, number)
        began = time.perf_counter()
        force[0] = limited(256)
        actor = top.child("queue")
        assert actor is not None
        service = actor.service
        assert isinstance(service, QueueActor)
        service.stir()
        seen = log.head
        ended = 0
        while ended < count:
            await log.past(seen)
            events = log.recent(seen, 100_000) or []
            seen = log.head
            ended += sum(1 for event in events if event.type == "egress.stopped")
        took = time.perf_counter() - began
        root.stop(StopReason(Cause.SHUTDOWN))
    database.close()
    return count / took


# -- Redis ----------------------------------------------------------------------------


@contextmanager
def _redis(place: Path, sync: str) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    own = place / f"redis-{sync}"
    own.mkdir()
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    argv += ["--dir", str(own), "--appendonly", "no" if sync == "no" else "yes"]
    argv += ["--appendfsync", sync, "--loglevel", "warning"]
    running = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        _until_up(port)
        yield port
    finally:
        running.terminate()
        running.wait(10)


def _until_up(port: int) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def _list(port: int, count: int) -> float:
    return trio.run(_drain_list, port, count)


async def _drain_list(port: int, count: int) -> float:
    client: Any = coredis.Redis(host="127.0.0.1", port=port)
    async with client:
        await client.delete(["queue"])
        await client.rpush("queue", [f"task {n}" for n in range(count)])
        began = time.perf_counter()
        done = 0
        while await client.lpop("queue") is not None:
            done += 1
        took = time.perf_counter() - began
    assert done == count
    return count / took
