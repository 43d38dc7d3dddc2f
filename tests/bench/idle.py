"""10,000 idle actors: how long they take to start, and how much memory each takes.

The start is beside that of as many bare trio tasks, each waiting at a memory channel of its own.
Each sample is taken in a process of its own.
"""

from __future__ import annotations

import gc
import time

import trio

from supervisor.spec import ChildSpec
from tests.bench.kit import Options, Rounds, Row, Target, fresh, resident
from tests.bench.protocol import Count, Counter, tree

KIB = 1024


def run(options: Options) -> list[Row]:
    """See the module."""
    count = options.pick(200, 10_000)
    rounds = Rounds(
        options.pick(1, 5),
        lambda: float(fresh("idle:actors", count)[0]),
        lambda: float(fresh("idle:tasks", count)[0]),
        lambda: float(fresh("idle:actors", count)[1]),
        lambda: float(fresh("idle:tasks", count)[1]),
    )
    return [
        Row(
            f"start of {count:,} actors",
            rounds.median(0),
            "s",
            "bare trio tasks with a channel",
            rounds.ratio(0, 1),
            Target("<=", 3),
        ),
        Row(
            "memory of an idle actor",
            rounds.median(2) / count / KIB,
            "KiB",
            "a bare trio task with a channel",
            rounds.ratio(2, 3),
            Target("<", 12, "KiB"),
        ),
    ]


def actors(count: int) -> tuple[float, int]:
    """Seconds until all run, and bytes of memory that they added."""
    return trio.run(_actors, count)


def tasks(count: int) -> tuple[float, int]:
    """The same of bare tasks."""
    return trio.run(_tasks, count)


async def _actors(count: int) -> tuple[float, int]:
    async with tree() as top:
        gc.collect()
        before = resident()
        began = time.perf_counter()
        children = [top.start_child(ChildSpec(f"{n}", Counter)) for n in range(count)]
        for child in children:
            await child.settled()
        return time.perf_counter() - began, resident() - before


async def _tasks(count: int) -> tuple[float, int]:
    running = 0

    async def idle(channel: trio.MemoryReceiveChannel[Count]) -> None:
        nonlocal running
        running += 1
        await channel.receive()

    async with trio.open_nursery() as nursery:
        gc.collect()
        before = resident()
        began = time.perf_counter()
        ends = []
        for _ in range(count):
            send, receive = trio.open_memory_channel[Count](64)
            ends.append(send)
            nursery.start_soon(idle, receive)
        while running < count:
            await trio.lowlevel.checkpoint()
        measured = time.perf_counter() - began, resident() - before
        nursery.cancel_scope.cancel()
    return measured
