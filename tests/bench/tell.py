"""Telling an actor in bursts of 10, beside handing over by `await send` on a trio channel.

Both carry the same message object to a task that counts it.
"""

from __future__ import annotations

import time

import trio
import trio.testing

from supervisor.ref import Ref
from supervisor.spec import ChildSpec
from tests.bench.kit import Options, Rounds, Row, Target
from tests.bench.protocol import Count, Counter, tree

BURST = 10


def run(options: Options) -> list[Row]:
    """See the module."""
    count = options.pick(2_000, 200_000)
    rounds = Rounds(
        options.pick(1, 7), lambda: trio.run(_told, count), lambda: trio.run(_handed_over, count)
    )
    return [
        Row(
            "tell in bursts of 10",
            rounds.median(0),
            "msg/s",
            "await send on a trio channel",
            rounds.ratio(0, 1),
            Target(">=", 3),
        )
    ]


async def _told(count: int) -> float:
    counter = Counter()
    message = Count(1)
    async with tree() as top:
        child = top.start_child(ChildSpec("counter", lambda: counter))
        await child.settled()
        ref: Ref[Count] = child.ref
        counter.wanted = count
        began = time.perf_counter()
        for _ in range(count // BURST):
            for _ in range(BURST):
                ref.tell(message)
            await trio.lowlevel.checkpoint()
        await counter.done.wait()
        return count / (time.perf_counter() - began)


async def _handed_over(count: int) -> float:
    message = Count(1)
    send, receive = trio.open_memory_channel[Count](0)
    seen = 0

    async def take() -> None:
        nonlocal seen
        async for _ in receive:
            seen += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        began = time.perf_counter()
        for _ in range(count):
            await send.send(message)
        send.close()
    assert seen == count
    return count / (time.perf_counter() - began)
