"""An endpoint's place in the log: what it wants is queued, and the cursor kept, in one transaction.

What it does not want moves the cursor in memory at once and on the disk now and then: a restart
looks at it again, which costs nothing and tells nobody.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import trio

from actors.webhook import delivery_records, records
from actors.webhook.outbox import Item
from actors.webhook.patience import Patient
from actors.webhook.selection import Selection
from actors.webhook.services import Services
from config.model import Webhook
from supervisor.bus import Gap, Reader
from supervisor.errors import StoreUnavailable
from supervisor.event import Event, Topics

# Looked at in one step, and queued in one transaction.
STEP = 250
# How long, and for how many events, the cursor on the disk may be behind the one in memory.
# Retention must not find it so far back that it takes for a gap what was looked at long ago.
KEEP_WITHIN = 60.0
KEEP_EVERY = 5000

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
        self._patient = Patient(services.store, name)
        self._name = name
        self._section = section
        self._selection = Selection(section.topics, section.once)
        self._room = room
        self._go_on = trio.Event()
        self._kept = cursor
        # All up to here is looked at, and what was wanted of it is queued.
        self._done = cursor
        # When the disk is to know of it, by trio's clock.
        self._keep_by = math.inf

    def may_go_on(self) -> None:
        """There is room."""
        self._go_on.set()

    async def run(self, report: Report) -> None:
        """Read for ever; `report` tells what is queued."""
        services = self._services
        standing = services.board.standings[self._name]
        # Cursor and log are of one database: whatever its epoch was, this is the place in it.
        token = services.log.token(min(self._done, services.log.head))
        reader = services.log.reader(token, Topics(), services.store)
        while True:
            standing.cursor = self._done
            if not self._room():
                await self._keep()
                await self._wait_for_room()
            found = await self._next(reader)
            if found is None:
                await self._keep()
            elif isinstance(found, Gap):
                await self._patient.write(
                    records.pass_gap, self._name, found.reason, found.requested, found.first
                )
                self._at(reader.cursor)
            else:
                await self._queue(found, reader.cursor, report)

    async def _wait_for_room(self) -> None:
        while not self._room():
            self._go_on = trio.Event()
            await self._go_on.wait()

    async def _next(self, reader: Reader) -> Gap | list[Event] | None:
        """The next events, or None when the cursor is to be kept before there are any."""
        with trio.move_on_at(self._keep_by):
            try:
                return await reader.read(min(STEP, max(self._room(), 1)))
            except StoreUnavailable as error:
                # It has not moved: the same is read again.
                await self._patient.wait(error)
        return None

    async def _queue(self, events: list[Event], cursor: int, report: Report) -> None:
        wanted = [
            delivery_records.Fresh(event, self._selection.is_once(event))
            for event in events
            if self._selection.wants(event)
        ]
        if wanted:
            queued = await self._patient.write(
                delivery_records.queue, self._name, wanted, self._section.once_hours, cursor
            )
            self._at(cursor)
            await report([Item(seq, subject) for seq, subject in queued])
        else:
            self._done = cursor
            now = trio.current_time()
            self._keep_by = min(self._keep_by, now + KEEP_WITHIN)
            if cursor - self._kept >= KEEP_EVERY or now >= self._keep_by:
                await self._keep()
            # What is in memory is read without waiting: others want a turn, too.
            await trio.lowlevel.checkpoint()

    async def _keep(self) -> None:
        if self._done > self._kept:
            await self._patient.write(records.move_cursor, self._name, self._done)
            self._at(self._done)

    def _at(self, cursor: int) -> None:
        """Disk and memory agree."""
        self._kept = self._done = cursor
        self._keep_by = math.inf

    async def keep_place(self) -> None:
        """Once more at the end. Raises StoreUnavailable."""
        if self._done > self._kept:
            await self._services.store.write(records.move_cursor, self._name, self._done)
