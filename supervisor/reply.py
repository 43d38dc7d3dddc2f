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
PER_SECOND = 1 / TICK


class Reply(Generic[R]):
    """Where an answer arrives. The first of `set` and `fail` counts, later ones are dropped.

    It is also how an ask travels: it waits in a mailbox with the `message` that is to be answered.
    """

    __slots__ = ("_bucket", "_error", "_task", "_value", "deadline", "done", "message", "timeout")

    def __init__(self, timeout: float, message: object = None) -> None:
        self.message = message
        self.timeout = timeout
        self.deadline = trio.current_time() + timeout
        # Is it answered, expired, or has the asker gone?
        self.done = False
        self._value: R | None = None
        self._error: BaseException | None = None
        self._task: trio.lowlevel.Task | None = None
        self._bucket: set[Reply[Any]] | None = None

    def set(self, value: R) -> None:
        """Answer."""
        if not self.done:
            self._value = value
            self._resolve()

    def fail(self, error: BaseException) -> None:
        """Answer with an error, which is raised where the asker waits."""
        if not self.done:
            self._error = error
            self._resolve()

    def _resolve(self) -> None:
        self.done = True
        task = self._task
        if task is not None:
            self._task = None
            if self._bucket is not None:
                self._bucket.discard(self)
            # All that trio wants of an outcome is `unwrap`: making one costs more than the rest.
            trio.lowlevel.reschedule(task, cast("outcome.Outcome[R]", self))

    def unwrap(self) -> R:
        """The value, or its error raised: called by trio in the asker's task."""
        if self._error is not None:
            raise self._error
        return cast(R, self._value)

    async def wait(self) -> R:
        """The answer. Raises what `fail` was given, or AskExpired."""
        if self.done:
            await trio.lowlevel.checkpoint()
            return self.unwrap()
        self._task = trio.lowlevel.current_task()
        if self.deadline != math.inf:
            try:
                _current.get().add(self)
            except LookupError:
                _first_wheel().add(self)
        return cast(R, await trio.lowlevel.wait_task_rescheduled(self._abort))

    def _abort(self, _raise: Callable[[], None]) -> trio.lowlevel.Abort:
        self._task = None
        if self._bucket is not None:
            self._bucket.discard(self)
        # The asker has gone: an actor that has not begun need not begin.
        self.done = True
        return trio.lowlevel.Abort.SUCCEEDED


class _Wheel:
    """Buckets of waiting replies by tick, and the task that expires them."""

    def __init__(self) -> None:
        self._buckets: dict[int, set[Reply[Any]]] = {}
        self._ticks: list[int] = []
        self._wake = trio.Event()
        trio.lowlevel.spawn_system_task(self._turn, name="ask deadlines")

    def add(self, reply: Reply[Any]) -> None:
        tick = int(reply.deadline * PER_SECOND) + 1
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


def _first_wheel() -> _Wheel:
    wheel = _Wheel()
    _current.set(wheel)
    return wheel
