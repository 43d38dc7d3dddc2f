"""Asking an actor, one round trip after the other.

Beside it: a bare trio.Event round trip, which has no deadline and no way to fail, and pykka's
`ask().get()` between threads.
"""

from __future__ import annotations

import time

import pykka
import trio

from supervisor.ref import Ref
from supervisor.spec import ChildSpec
from tests.bench.kit import Options, Rounds, Row, Target
from tests.bench.protocol import Counter, Echo, tree


def run(options: Options) -> list[Row]:
    """See the module."""
    count = options.pick(500, 50_000)
    rounds = Rounds(
        options.pick(1, 7),
        lambda: trio.run(_asked, count),
        lambda: trio.run(_bare, count),
        lambda: _pykka(count // 5),
    )
    value = rounds.median(0)
    return [
        Row(
            "ask with its deadline",
            value,
            "ask/s",
            "trio.Event round trip without one",
            rounds.ratio(0, 1),
            Target(">=", 0.5),
        ),
        Row(
            "ask with its deadline",
            value,
            "ask/s",
            "pykka ask().get()",
            rounds.ratio(0, 2),
            Target(">=", 2),
        ),
    ]


async def _asked(count: int) -> float:
    async with tree() as top:
        child = top.start_child(ChildSpec("counter", Counter))
        await child.settled()
        ref: Ref[Echo] = child.ref
        message = Echo(1)
        began = time.perf_counter()
        for _ in range(count):
            await ref.ask(message)
        return count / (time.perf_counter() - began)


class _Request:
    __slots__ = ("answered", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.answered = trio.Event()


async def _bare(count: int) -> float:
    send, receive = trio.open_memory_channel[_Request](64)

    async def serve() -> None:
        async for request in receive:
            request.answered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        began = time.perf_counter()
        for _ in range(count):
            request = _Request(1)
            send.send_nowait(request)
            await request.answered.wait()
        took = time.perf_counter() - began
        send.close()
    return count / took


class _Echoing(pykka.ThreadingActor):
    def on_receive(self, message: int) -> int:
        return message


def _pykka(count: int) -> float:
    ref = _Echoing.start()
    try:
        began = time.perf_counter()
        for number in range(count):
            ref.ask(number, block=False).get()
        return count / (time.perf_counter() - began)
    finally:
        ref.stop()
