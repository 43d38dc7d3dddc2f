"""An endpoint's place in the log: what it wants is queued, and the cursor kept, in one transaction.

What it does not want moves the cursor in memory at once and on the disk now and then: a restart
looks at it again, which costs nothing and tells nobody.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from actors.webhook import records
from actors.webhook.outbox import Item
from actors.webhook.selection import Selection
from actors.webhook.services import Services
from config.model import Webhook
from supervisor.bus import Gap, Reader
from supervisor.event import Event, Topics

# Looked at in one step, and queued in one transaction.
STEP = 250
# How long, and for how many events, the cursor on the disk may be behind the one in memory.
# Retention must not find it so far back that it takes for a gap what was looked at long ago.
KEEP_WITHIN = 60.0
KEEP_EVERY = 5000

Insist = Callable[..., Awaitable[Any]]
Report = Callable[[Sequence[Item]], Awaitable[None]]


class LogReading:
    """`room` says how many more may be queued; while there is none the log keeps them."""

    def __init__(
        self,
        services: Services,
        name: str,
        section: Webhook,
        cursor: int,
        room: Callable[[], int],
    ) -> None:
        self._services = services
        self._name = name
        self._section = section
        self._selection = Selection(section.topics, section.once)
        self._room = room
        self._go_on = trio.Event()
        self._kept = cursor
        # All up to here is looked at, and what was wanted of it is queued.
        self._done = cursor

    def may_go_on(self) -> None:
        """There is room."""
        self._go_on.set()

    async def run(self, insist: Insist, report: Report) -> None:
        """Read for ever. `insist` writes whatever the disk does; `report` tells what is queued."""
        services = self._services
        standing = services.board.standings[self._name]
        # Cursor and log are of one database: whatever its epoch was, this is the place in it.
        token = services.log.token(min(self._done, services.log.head))
        reader = services.log.reader(token, Topics(), services.store)
        while True:
            standing.cursor = self._done
            if not self._room():
                await self._keep(insist)
                await self._wait_for_room()
            found = await self._next(reader)
            if found is None:
                await self._keep(insist)
            elif isinstance(found, Gap):
                await insist(
                    records.pass_gap, self._name, found.reason, found.requested, found.first
                )
                self._kept = self._done = reader.cursor
            else:
                await self._queue(found, reader.cursor, insist, report)

    async def _wait_for_room(self) -> None:
        while not self._room():
            self._go_on = trio.Event()
            await self._go_on.wait()

    async def _next(self, reader: Reader) -> Gap | list[Event] | None:
        """The next events, or None when the cursor is to be kept before there are any."""
        behind = self._done > self._kept
        with trio.move_on_after(KEEP_WITHIN if behind else math.inf):
            return await reader.read(min(STEP, max(self._room(), 1)))
        return None

    async def _queue(
        self, events: list[Event], cursor: int, insist: Insist, report: Report
    ) -> None:
        wanted = [
            records.Fresh(event, self._selection.is_once(event))
            for event in events
            if self._selection.wants(event)
        ]
        if wanted:
            queued = await insist(
                records.queue, self._name, wanted, self._section.once_hours, cursor
            )
            self._kept = self._done = cursor
            await report([Item(seq, subject) for seq, subject in queued])
        else:
            self._done = cursor
            if cursor - self._kept >= KEEP_EVERY:
                await self._keep(insist)

    async def _keep(self, insist: Insist) -> None:
        if self._done > self._kept:
            done = self._done
            await insist(records.move_cursor, self._name, done)
            self._kept = done

    async def keep_place(self) -> None:
        """Once more at the end. Raises StoreUnavailable."""
        if self._done > self._kept:
            await self._services.store.write(records.move_cursor, self._name, self._done)
