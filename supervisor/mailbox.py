"""Messages and the bounded queue they wait in.

A mailbox is a trio memory channel and counters. Nobody waits to put something in:
when it is full, the message's class says what happens.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from typing import Any, ClassVar, Final, Generic, TypeVar

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


class Envelope:
    """An ask on its way: the message, and where its answer goes."""

    __slots__ = ("message", "reply")

    def __init__(self, message: Ask[Any], reply: Reply[Any]) -> None:
        self.message = message
        self.reply = reply


class _Wake:
    """A token that is no message: look again, at the stop flag and the coalescing slots."""


WAKE: Final = _Wake()


class Mailbox:
    """One incarnation's queue. Closed for good when its actor ends."""

    __slots__ = (
        "_closed",
        "_receive",
        "_send",
        "_slots",
        "_woken",
        "coalesced",
        "depth",
        "handled",
        "high_water",
        "path",
        "refused",
        "size",
    )

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self.size = size
        # One place more, for the token: it must not cost a message its place, nor the other way.
        self._send, self._receive = trio.open_memory_channel[Any](size + 1)
        self._woken = False
        self._slots: dict[Hashable, Message] | None = None
        self._closed: str | None = None
        self.depth = self.high_water = self.refused = self.coalesced = self.handled = 0

    def put(self, item: Message | Envelope) -> None:
        """Queue an item. Raises MailboxFull, or ActorDown when the actor has ended."""
        if self._closed is not None:
            raise ActorDown(self.path, self._closed)
        if type(item) is not Envelope and item.overflow is Overflow.COALESCE:  # type: ignore[union-attr]
            self._put_slot(item)  # type: ignore[arg-type]
            return
        self.put_ask(item)

    def put_ask(self, item: Message | Envelope) -> None:
        """Queue what is refused when there is no room, as every ask is. Raises as `put`."""
        if self._closed is not None:
            raise ActorDown(self.path, self._closed)
        depth = self.depth + 1
        if depth > self.size:
            self.refused += 1
            raise MailboxFull(self.path, self.size)
        self._send.send_nowait(item)
        self.depth = depth
        if depth > self.high_water:
            self.high_water = depth

    def _put_slot(self, message: Message) -> None:
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
        if self._closed is not None:
            raise ActorDown(self.path, self._closed)
        # Counted before it has room: the actor may take it before this task runs again.
        self.depth += 1
        self.high_water = max(self.high_water, self.depth)
        try:
            await self._send.send(message)
        except BaseException:
            self.depth -= 1
            raise

    def wake(self) -> None:
        """Make a waiting `take` return; a full mailbox has no waiting `take`."""
        if self._woken:
            return
        try:
            self._send.send_nowait(WAKE)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            return
        self._woken = True

    async def take(self) -> Message | Envelope | _Wake:
        """The next item, when there is one."""
        item: Message | Envelope | _Wake = await self._receive.receive()
        if item is WAKE:
            self._woken = False
        else:
            self.depth -= 1
        return item

    def take_nowait(self) -> Message | Envelope | _Wake | None:
        """The next item, or None. Coalesced messages come when nothing else waits."""
        if not (self.depth or self._woken):
            # Known without asking the channel, which says so by an exception.
            return self._take_slot()
        try:
            item: Message | Envelope | _Wake = self._receive.receive_nowait()
        except trio.WouldBlock:
            return self._take_slot()
        if item is WAKE:
            self._woken = False
        else:
            self.depth -= 1
        return item

    def _take_slot(self) -> Message | None:
        # Slots need no token of their own: a full channel had no room for one.
        return self._slots.pop(next(iter(self._slots))) if self._slots else None

    def close(self, reason: str) -> None:
        """End it: every waiting asker gets ActorDown now, and so does who comes later."""
        self._closed = reason
        while True:
            item = self.take_nowait()
            if item is None:
                break
            if isinstance(item, Envelope):
                item.reply.fail(ActorDown(self.path, reason))
        self._slots = None
        self._receive.close()
        self._send.close()
