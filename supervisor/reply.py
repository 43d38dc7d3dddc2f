"""The answer to an ask: one slot, one waiter, one deadline.

Waiting costs no cancel scope: a deadline is an entry in a wheel of 20 ms ticks that
one system task turns, and that task sleeps while nobody waits. A cancel scope for each
ask was tried and costs nearly half of a round trip.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import outcome
import trio

from supervisor.errors import AskExpired

R = TypeVar("R")

TICK = 0.02


class Reply(Generic[R]):
    """Where an answer arrives. The first of `set` and `fail` counts, later ones are dropped."""

    __slots__ = ("_bucket", "_outcome", "_task", "deadline", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.deadline = trio.current_time() + timeout
        self._outcome: outcome.Value[R] | outcome.Error | None = None
        self._task: trio.lowlevel.Task | None = None
        self._bucket: set[Reply[Any]] | None = None

    @property
    def done(self) -> bool:
        """Is it answered, expired, or has the asker gone?"""
        return self._outcome is not None

    def set(self, value: R) -> None:
        """Answer."""
        self._resolve(outcome.Value(value))

    def fail(self, error: BaseException) -> None:
        """Answer with an error, which is raised where the asker waits."""
        self._resolve(outcome.Error(error))

    def _resolve(self, result: outcome.Value[R] | outcome.Error) -> None:
        if self._outcome is not None:
            return
        self._outcome = result
        task = self._task
        if task is not None:
            self._task = None
            if self._bucket is not None:
                self._bucket.discard(self)
            trio.lowlevel.reschedule(task, result)

    async def wait(self) -> R:
        """The answer. Raises what `fail` was given, or AskExpired."""
        if self._outcome is not None:
            await trio.lowlevel.checkpoint()
            return self._outcome.unwrap()
        self._task = trio.lowlevel.current_task()
        if self.deadline != math.inf:
            _wheel().add(self)
        return cast(R, await trio.lowlevel.wait_task_rescheduled(self._abort))

    def _abort(self, _raise: Callable[[], None]) -> trio.lowlevel.Abort:
        self._task = None
        if self._bucket is not None:
            self._bucket.discard(self)
        # The asker has gone: an actor that has not begun need not begin.
        self._outcome = outcome.Error(trio.ClosedResourceError("the asker has gone"))
        return trio.lowlevel.Abort.SUCCEEDED


class _Wheel:
    """Buckets of waiting replies by tick, and the task that expires them."""

    def __init__(self) -> None:
        self._buckets: dict[int, set[Reply[Any]]] = {}
        self._ticks: list[int] = []
        self._wake = trio.Event()
        trio.lowlevel.spawn_system_task(self._turn, name="ask deadlines")

    def add(self, reply: Reply[Any]) -> None:
        tick = int(reply.deadline / TICK) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = set()
            heapq.heappush(self._ticks, tick)
            if self._ticks[0] == tick:
                self._wake.set()
        bucket.add(reply)
        reply._bucket = bucket

    async def _turn(self) -> None:
        while True:
            self._wake = trio.Event()
            if not self._ticks:
                await self._wake.wait()
                continue
            with trio.move_on_at(self._ticks[0] * TICK):
                await self._wake.wait()
            now = trio.current_time()
            while self._ticks and self._ticks[0] * TICK <= now:
                for reply in list(self._buckets.pop(heapq.heappop(self._ticks))):
                    reply.fail(AskExpired(reply.timeout))


_current: trio.lowlevel.RunVar[_Wheel] = trio.lowlevel.RunVar("ask deadlines")


def _wheel() -> _Wheel:
    try:
        return _current.get()
    except LookupError:
        wheel = _Wheel()
        _current.set(wheel)
        return wheel
