"""The log as its readers see it: the newest events in memory, all others in the database.

A reader is a cursor and nothing more. It has no queue that could grow: one that is near the
head reads from the ring that all share, one that fell behind reads from the database, and
nobody waits for anybody. Whether it replays or is live is only a matter of where it stands, so
there is no seam at which an event could be lost or told twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import trio

from supervisor.event import Event, Topics
from supervisor.store import Store
from supervisor.transaction import Reading

# Events kept in memory. Between half of it and all of it are really there.
RING = 8192
# And bytes of their data, if that is fewer.
RING_BYTES = 64 * 1024 * 1024
# Rows a replay takes from the database at once.
REPLAY_CHUNK = 500
# What stands in the place of data that was erased.
ERASED = msgspec.Raw(b'{"erased":true}')


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that a reader asked for and cannot have.

    `reason`: `retention` (they are older than what is kept), `epoch` (they were in another log:
    a backup was restored), `ahead` (they have not happened in this log). Reading goes on at
    `first`.
    """

    reason: str
    requested: str
    first: int


class TokenError(ValueError):
    """A resume token that is not `<epoch>:<seq>`."""


class EventLog:
    """Publishing after commit, and readers with a cursor."""

    def __init__(self, epoch: str, head: int, first: int, ring: int = RING) -> None:
        self.epoch = epoch
        self.head = head
        self.first = first
        self._size = ring
        self._ring: list[Event] = []
        self._bytes = 0
        self._base = head + 1
        self._waiting: trio.Event | None = None
        self.readers = 0

    def publish(self, events: list[Event]) -> None:
        """Called by the store's writer after each commit, on trio's thread, in order of seq."""
        ring = self._ring
        ring.extend(events)
        self.head = events[-1].seq
        self._bytes += sum([len(event.data) for event in events])
        if len(ring) > self._size:
            self._drop(len(ring) - self._size // 2)
        while self._bytes > RING_BYTES and ring:
            self._drop(len(ring) // 2 + 1)
        if self._waiting is not None:
            self._waiting.set()
            self._waiting = None

    def _drop(self, count: int) -> None:
        """The oldest are not in memory any more."""
        self._bytes -= sum([len(event.data) for event in self._ring[:count]])
        del self._ring[:count]
        self._base += count

    def erase(self, is_meant: Callable[[Event], bool]) -> None:
        """The data of these events is no more in the database, and goes from memory too."""
        ring = self._ring
        for i, event in enumerate(ring):
            if is_meant(event):
                self._bytes -= len(event.data) - len(ERASED)
                ring[i] = Event(event.seq, event.ts, event.type, event.subject, ERASED)

    def forgotten(self, first: int) -> None:
        """Retention has deleted all events before `first`."""
        self.first = max(self.first, first)

    def token(self, seq: int | None = None) -> str:
        """The resume token of an event, or of the head: `<epoch>:<seq>`."""
        return f"{self.epoch}:{self.head if seq is None else seq}"

    async def past(self, seq: int) -> None:
        """Return when there is an event after `seq`."""
        while self.head <= seq:
            if self._waiting is None:
                self._waiting = trio.Event()
            await self._waiting.wait()

    def recent(self, after: int, limit: int) -> list[Event] | None:
        """Up to `limit` events after `after` from memory; None if they are not all there."""
        start = after + 1 - self._base
        if start < 0:
            return None
        return self._ring[start : start + limit]

    def reader(self, since: str | None, topics: Topics, store: Store) -> Reader:
        """A reader from the event after the token `since`; from now on without one.

        `0` stands for the oldest event that is kept.
        Raises TokenError. What it cannot have it is told by a Gap from its first `read`.
        """
        if since is None:
            return Reader(self, store, self.head, topics, None)
        if since == "0":
            return Reader(self, store, self.first - 1, topics, None)
        epoch, _, number = since.rpartition(":")
        if not epoch or not (number.isascii() and number.isdigit()) or len(number) > 18:
            raise TokenError(f"{since!r} is not a resume token: expected <epoch>:<seq>")
        seq = int(number)
        if epoch != self.epoch:
            return self._gapped("epoch", since, topics, store)
        if seq > self.head:
            return self._gapped("ahead", since, topics, store)
        if seq < self.first - 1:
            return self._gapped("retention", since, topics, store)
        return Reader(self, store, seq, topics, None)

    def _gapped(self, reason: str, since: str, topics: Topics, store: Store) -> Reader:
        gap = Gap(reason, since, self.first)
        return Reader(self, store, self.first - 1, topics, gap)


class Reader:
    """One subscriber's place in the log."""

    __slots__ = ("_gap", "_log", "_store", "_topics", "cursor")

    def __init__(
        self, log: EventLog, store: Store, cursor: int, topics: Topics, gap: Gap | None
    ) -> None:
        self._log = log
        self._store = store
        self._topics = topics
        self._gap = gap
        self.cursor = cursor

    @property
    def token(self) -> str:
        """Where to resume after what was read; as it was asked for, while a gap is to be told."""
        if self._gap is not None:
            return self._gap.requested
        return self._log.token(self.cursor)

    @property
    def behind(self) -> int:
        """How many events, of any topic, it has not seen."""
        return self._log.head - self.cursor

    async def read(self, limit: int = 256) -> Gap | list[Event]:
        """Wait for events and return at least one, or a Gap before them.

        `limit` is how many of the log are looked at in one step. May be cancelled at any time
        without losing or repeating an event.
        """
        log = self._log
        while True:
            if self._gap is None and self.cursor < log.first - 1:
                # Retention overtook it while it was reading, or before.
                self._gap = Gap("retention", self.token, log.first)
            if self._gap is not None:
                gap, self._gap = self._gap, None
                self.cursor = gap.first - 1
                return gap
            await log.past(self.cursor)
            events = log.recent(self.cursor, limit)
            if events is None:
                # Looked at before the query: what is published during it may not be in its answer.
                head = log.head
                events = await self._replay(limit)
                first = events[0].seq if events else head + 1
                if first != self.cursor + 1:
                    # Retention deleted some between our look and the query.
                    log.forgotten(first)
                    continue
            # From here to the return nothing waits: cursor and events belong together.
            self.cursor = events[-1].seq
            selected = self._topics.select(events)
            if selected:
                return selected
            await trio.lowlevel.checkpoint()

    async def _replay(self, limit: int) -> list[Event]:
        chunk = limit if self._topics.all else max(limit, REPLAY_CHUNK)
        return await self._store.read(load_events, self.cursor, chunk)


def load_events(db: Reading, after: int, limit: int) -> list[Event]:
    """The first `limit` events after a sequence number, oldest first."""
    rows = db.all(
        "SELECT seq, ts, type, subject, data FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, limit),
    )
    return [Event(s, ts, t, sub, msgspec.Raw(data.encode())) for s, ts, t, sub, data in rows]
