"""Deletes what is older, or more, than is kept; in small steps, so that nobody waits for it."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable, Sequence

import trio

from config.model import Retention
from supervisor.bus import EventLog
from supervisor.errors import Rejected
from supervisor.event import timestamp
from supervisor.log import logger
from supervisor.service import Context, Service
from supervisor.store import Store
from supervisor.transaction import Transaction

STEP = 500
EVERY = 60.0
# Between two steps, so that others' writes come first.
PAUSE = 0.05
# The whole file is read when the start is over, and then every day.
CHECK_AFTER = 120.0
CHECK_EVERY = 24 * 3600.0

# Deletes what belonged to rows that are gone.
Sweep = Callable[[], Awaitable[None]]
# Deletes up to so many rows that are older than a time; how many it deleted.
Forget = Callable[[Transaction, str, int], int]
Rule = tuple[Forget, Callable[[Retention], float]]


class Keeper(Service):
    """`rules`: what to forget, and the days that the configuration keeps it (0: for ever).

    `sweeps` come after them.
    """

    def __init__(
        self,
        store: Store,
        log: EventLog,
        settings: Callable[[], Retention],
        rules: Sequence[Rule],
        sweeps: Sequence[Sweep] = (),
    ) -> None:
        self._store = store
        self._log = log
        self._settings = settings
        self._rules = rules
        self._sweeps = sweeps

    async def run(self, context: Context) -> None:
        """See Service.run."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_on, context)
            nursery.start_soon(self._check_file)
            context.ready()
            await context.stopped()
            nursery.cancel_scope.cancel()

    async def _keep_on(self, context: Context) -> None:
        while True:
            await trio.sleep(EVERY)
            context.begin("retention")
            try:
                await trio.to_thread.run_sync(self._store.database.leave_word)
                await self.once()
            except (Rejected, OSError) as error:
                logger.warning("retention_put_off", error=str(error))
            context.idle()

    async def once(self) -> None:
        """Delete all that is due now, step by step."""
        settings = self._settings()
        await self._events(settings)
        failed: Exception | None = None
        for forget, days in self._rules:
            if days(settings) <= 0:
                continue
            try:
                await self._forget(forget, _ago(days(settings)))
            except Rejected:
                raise
            except Exception as error:  # noqa: BLE001 - it is raised when the others had their turn
                logger.error("retention_failed", exc_info=error)
                failed = error
        for sweep in self._sweeps:
            await sweep()
        if failed is not None:
            raise failed

    async def _forget(self, forget: Forget, before: str) -> None:
        while True:
            if await self._store.write(forget, before, STEP) < STEP:
                return
            await trio.sleep(PAUSE)

    async def _events(self, settings: Retention) -> None:
        before = _ago(settings.event_days) if settings.event_days > 0 else ""
        keep = int(settings.event_count) or 2**62
        while True:
            first, deleted = await self._store.write(_forget_events, before, keep, STEP)
            self._log.forgotten(first)
            if deleted < STEP:
                return
            await trio.sleep(PAUSE)

    async def _check_file(self) -> None:
        """Read the whole database after the start and every day: damage must not stay hidden."""
        await trio.sleep(CHECK_AFTER)
        while True:
            found = await trio.to_thread.run_sync(
                self._store.database.quick_check, abandon_on_cancel=True
            )
            if found != "ok":
                logger.critical("database_damaged", found=found)
                self._store.damaged = found
                self._store.submit(_tell_damage, found)
            await trio.sleep(CHECK_EVERY)


def _ago(days: float) -> str:
    return timestamp(datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days))


def _forget_events(tx: Transaction, before: str, keep: int, limit: int) -> tuple[int, int]:
    """Delete the oldest events that are too old or too many: (first that is left, deleted).

    The newest is always kept: the numbering goes on from it.
    """
    first = tx.value("SELECT min(seq) FROM events")
    if first is None:
        return tx.head + 1, 0
    last = min(first + limit - 1, tx.head - 1)
    too_many = min(last, tx.head - keep)
    too_old = tx.value(
        "SELECT max(seq) FROM events WHERE seq BETWEEN ? AND ? AND ts < ?", (first, last, before)
    )
    upto = max(too_many, too_old or 0)
    if upto < first:
        return first, 0
    return upto + 1, tx.execute("DELETE FROM events WHERE seq <= ?", (upto,))


def _tell_damage(tx: Transaction, found: str) -> None:
    tx.emit("store.damaged", "system/store", {"found": found})
