"""What waits to be sent, in memory: by subject, each in the order of the log. Pure.

Only the oldest of a subject may go, and the next when that one is settled: a subject whose oldest
waits for another try holds itself and nobody else.
"""

from __future__ import annotations

import bisect
import heapq
import math
from dataclasses import dataclass


@dataclass(slots=True)
class Item:
    """A delivery that is pending. What is sent is in its row; `due` is by trio's clock."""

    seq: int
    subject: str
    attempts: int = 0
    due: float = 0.0


class Outbox:
    """Never tried and tried ones are apart: the former may be held while the receiver is away."""

    def __init__(self) -> None:
        self._queues: dict[str, list[Item]] = {}
        self._flying: dict[str, Item] = {}
        # Heads that may be taken: (seq, subject) and (due, seq, subject). An entry that its
        # subject's head is not any more is passed over when it comes up.
        self._fresh: list[tuple[int, str]] = []
        self._tried: list[tuple[float, int, str]] = []
        self._size = 0

    def __len__(self) -> int:
        """How many are pending, those under way among them."""
        return self._size

    @property
    def flying(self) -> int:
        """How many are under way."""
        return len(self._flying)

    def add(self, item: Item) -> None:
        """One more; a redriven one goes to its old place."""
        queue = self._queues.setdefault(item.subject, [])
        bisect.insort(queue, item, key=lambda it: it.seq)
        self._size += 1
        if queue[0] is item and item.subject not in self._flying:
            self._offer(item)

    def take(self, now: float, *, fresh: bool) -> Item | None:
        """The next that may go, and is under way from now on; `fresh`: also if never tried."""
        item = self._head_tried()
        if item is None or item.due > now:
            item = self._head_fresh() if fresh else None
        if item is not None:
            self._flying[item.subject] = item
        return item

    def settled(self, item: Item) -> None:
        """It is delivered or dead: the next of its subject may go."""
        self._land(item)
        queue = self._queues[item.subject]
        queue.remove(item)
        self._size -= 1
        if queue:
            self._offer(queue[0])
        else:
            del self._queues[item.subject]

    def again(self, item: Item, due: float) -> None:
        """It is to be tried again at `due`."""
        self._land(item)
        item.due = due
        self._offer(self._queues[item.subject][0])

    def next_due(self) -> float:
        """When the next that was tried is due."""
        item = self._head_tried()
        return math.inf if item is None else item.due

    @property
    def has_fresh(self) -> bool:
        """Could one that was never tried go?"""
        return self._head_fresh() is not None

    @property
    def first_tries(self) -> int:
        """How many are under way for the first time."""
        return sum(1 for item in self._flying.values() if not item.attempts)

    # -- the heaps ------------------------------------------------------------

    def _offer(self, item: Item) -> None:
        if item.attempts:
            heapq.heappush(self._tried, (item.due, item.seq, item.subject))
        else:
            heapq.heappush(self._fresh, (item.seq, item.subject))

    def _land(self, item: Item) -> None:
        landed = self._flying.pop(item.subject)
        assert landed is item

    def _head_tried(self) -> Item | None:
        while self._tried:
            due, seq, subject = self._tried[0]
            item = self._head(seq, subject)
            if item is not None and item.attempts and item.due == due:
                return item
            heapq.heappop(self._tried)
        return None

    def _head_fresh(self) -> Item | None:
        while self._fresh:
            seq, subject = self._fresh[0]
            item = self._head(seq, subject)
            if item is not None and not item.attempts:
                return item
            heapq.heappop(self._fresh)
        return None

    def _head(self, seq: int, subject: str) -> Item | None:
        """The head of a subject, if it has this number and may go."""
        queue = self._queues.get(subject)
        if queue is None or subject in self._flying or queue[0].seq != seq:
            return None
        return queue[0]
