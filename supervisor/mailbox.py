"""Messages and the bounded queue they wait in.

A mailbox is a deque, the one task that takes from it, and counters; an ask waits in it as the reply
that is to be answered. Nobody waits to put something in: when it is full, the message's class says
what happens. A trio memory channel for each was tried: it costs a fifth of an ask's round trip.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, Generic, TypeVar, cast

import outcome
import trio

from supervisor.errors import ActorDown, MailboxFull
from supervisor.reply import Reply

R = TypeVar("R")


class Overflow(enum.Enum):
    """What becomes of a message when its mailbox is full."""

    REFUSE = "refuse"  # the sender gets MailboxFull
    COALESCE = "coalesce"  # only the newest of each key is kept, full or not


class Message:
    """Base of every message: subclasses are frozen dataclasses with slots."""

    __slots__ = ()
    overflow: ClassVar[Overflow] = Overflow.REFUSE

    def coalesce_key(self) -> Hashable:
        """Messages of one class with equal keys replace each other (COALESCE only)."""
        return None


class Ask(Message, Generic[R]):
    """A message that is answered with an R."""

    __slots__ = ()


class _Nothing:
    """What a task is woken with: it looks for itself what there is. trio's own serve only once."""

    def unwrap(self) -> None:
        """All that trio wants of an outcome."""


_NOTHING = cast("outcome.Value[None]", _Nothing())


class Mailbox:
    """One incarnation's queue, taken from by one task. Closed for good when its actor ends."""

    __slots__ = (
        "_closed",
        "_posting",
        "_queue",
        "_slots",
        "_taker",
        "_woken",
        "coalesced",
        "handled",
        "high_water",
        "path",
        "refused",
        "size",
    )

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self.size = size
        self._queue: deque[Message | Reply[Any]] = deque()
        # The actor's task, while it waits for something to take.
        self._taker: trio.lowlevel.Task | None = None
        self._woken = False
        # Tasks of the actor's that wait for room, in their order, with what they post.
        self._posting: dict[trio.lowlevel.Task, Message] | None = None
        self._slots: dict[Hashable, Message] | None = None
        self._closed: str | None = None
        self.high_water = self.refused = self.coalesced = self.handled = 0

    @property
    def depth(self) -> int:
        """How many wait, with those that wait for room; without the coalesced."""
        return len(self._queue) + len(self._posting or ())

    def put(self, item: Message) -> None:
        """Queue a message. Raises MailboxFull, or ActorDown when the actor has ended."""
        if item.overflow is Overflow.COALESCE:
            self._put_slot(item)
        else:
            self.put_ask(item)

    def put_ask(self, item: Message | Reply[Any]) -> None:
        """Queue what is refused when there is no room, as every ask is. Raises as `put`."""
        if self._closed is not None:
            raise ActorDown(self.path, self._closed)
        queue = self._queue
        depth = len(queue) + 1
        if depth > self.size:
            self.refused += 1
            raise MailboxFull(self.path, self.size)
        queue.append(item)
        if depth > self.high_water:
            self.high_water = depth
        task = self._taker
        if task is not None:
            self._taker = None
            trio.lowlevel.reschedule(task, _NOTHING)

    def _put_slot(self, message: Message) -> None:
        if self._closed is not None:
            raise ActorDown(self.path, self._closed)
        if self._slots is None:
            self._slots = {}
        key = (type(message), message.coalesce_key())
        if key in self._slots:
            self.coalesced += 1
        elif len(self._slots) >= self.size:
            # Bounded as well: the key that waited longest gives way to the newest.
            self._slots.pop(next(iter(self._slots)))
            self.refused += 1
        self._slots[key] = message
        self.wake()

    async def post(self, message: Message) -> None:
        """Queue a message and wait for room: for an actor's own tasks that report to it."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed is not None or len(self._queue) < self.size:
            self.put_ask(message)
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        if self._posting is None:
            self._posting = {}
        posting, task = self._posting, trio.lowlevel.current_task()
        posting[task] = message
        self.high_water = max(self.high_water, self.depth)

        def abort(_raise: Callable[[], None]) -> trio.lowlevel.Abort:
            del posting[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> None:
        """Make `take` return, the one that waits or the next: there may be nothing to take."""
        self._woken = True
        task = self._taker
        if task is not None:
            self._taker = None
            trio.lowlevel.reschedule(task, _NOTHING)

    async def take(self) -> Message | Reply[Any] | None:
        """The next item, when there is one; None after a `wake`, when there may be none."""
        if self._queue or self._woken:
            await trio.lowlevel.checkpoint()
        else:
            self._taker = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort_take)
        self._woken = False
        return self.take_nowait()

    def _abort_take(self, _raise: Callable[[], None]) -> trio.lowlevel.Abort:
        self._taker = None
        return trio.lowlevel.Abort.SUCCEEDED

    def take_nowait(self) -> Message | Reply[Any] | None:
        """The next item, or None. Coalesced messages come when nothing else waits."""
        if not self._queue:
            return self._slots.pop(next(iter(self._slots))) if self._slots else None
        item = self._queue.popleft()
        if self._posting:
            task = next(iter(self._posting))
            self._queue.append(self._posting.pop(task))
            trio.lowlevel.reschedule(task, _NOTHING)
        return item

    def close(self, reason: str) -> None:
        """End it: every waiting asker gets ActorDown now, and so does who comes later."""
        self._closed = reason
        for item in self._queue:
            if type(item) is Reply:
                item.fail(ActorDown(self.path, reason))
        self._queue.clear()
        posting, self._posting = self._posting, None
        for task in posting or ():
            trio.lowlevel.reschedule(task, outcome.Error(ActorDown(self.path, reason)))
        self._slots = None
