"""The store: one writer with group commit, readers in threads, and the state of the disk.

A command is a plain function `fn(tx, *args) -> R`. The writer takes all that has queued up,
runs each in a savepoint of one transaction, commits with `synchronous=FULL`, and only then
publishes the events and answers. A command that fails, fails alone. When the commit fails,
all of them fail and none of them happened.

How the file is opened, migrated and checked is in database.py.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

import outcome
import trio

from supervisor.database import Database
from supervisor.errors import Rejected, StoreUnavailable
from supervisor.event import Event, timestamp
from supervisor.log import logger
from supervisor.service import Context, Service
from supervisor.transaction import Reading, Transaction

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

MAX_BATCH = 256
MAX_QUEUE = 20_000
# How often a disk that refused is tried again, in seconds.
PROBE_EVERY = 2.0
READERS = 4

_DISK_ERRORS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the disk is read-only",
    sqlite3.SQLITE_IOERR: "the disk fails",
    sqlite3.SQLITE_CANTOPEN: "the database cannot be opened",
    sqlite3.SQLITE_CORRUPT: "the database is damaged",
    sqlite3.SQLITE_NOTADB: "the database is damaged",
}


def disk_error(error: BaseException) -> str | None:
    """What an error says of the disk, in words; None when it is not about the disk."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else _DISK_ERRORS.get(code & 0xFF)


class _Command:
    __slots__ = ("args", "fn", "outcome", "task")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.fn = fn
        self.args = args
        self.task: trio.lowlevel.Task | None = None
        self.outcome: outcome.Outcome[Any] | None = None


class Store:
    """Handle to the database. `writer()` gives the service that must run for writes to happen."""

    def __init__(
        self, database: Database, publish: Callable[[list[Event]], None], max_batch: int = MAX_BATCH
    ) -> None:
        self.database = database
        self._publish = publish
        self._max_batch = max_batch
        self._queue: deque[_Command] = deque()
        self._wake: trio.Event | None = None
        self._closed = False
        self._reader_limit = trio.CapacityLimiter(READERS)
        self._head = database.head
        self.failing: str | None = None
        self.failing_since: str | None = None
        # What the daily look at the whole file found, if it is damaged.
        self.damaged: str | None = None
        self.commits = 0
        self.commands = 0

    # -- for everybody --------------------------------------------------------

    async def write(self, fn: Callable[[Transaction, *Ts], R], *args: *Ts) -> R:
        """Run `fn` in the next transaction and return what it returns, once that is on disk.

        Raises what `fn` raises, or StoreUnavailable. Cancellation withdraws a command that
        has not been taken up; one that has is waited for, so the caller always knows.
        """
        command = _Command(fn, args)
        self._enqueue(command)
        command.task = trio.lowlevel.current_task()

        def abort(_raise: Callable[[], None]) -> trio.lowlevel.Abort:
            try:
                self._queue.remove(command)
            except ValueError:
                return trio.lowlevel.Abort.FAILED
            return trio.lowlevel.Abort.SUCCEEDED

        result: R = await trio.lowlevel.wait_task_rescheduled(abort)
        return result

    def submit(self, fn: Callable[[Transaction, *Ts], object], *args: *Ts) -> None:
        """Queue a write that nobody waits for; a failure is logged."""
        try:
            self._enqueue(_Command(fn, args))
        except StoreUnavailable as error:
            logger.error("write_dropped", error=str(error))

    def _enqueue(self, command: _Command) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if len(self._queue) >= MAX_QUEUE:
            raise StoreUnavailable(f"{MAX_QUEUE} writes are waiting for the disk")
        self._queue.append(command)
        if self._wake is not None:
            self._wake.set()
            self._wake = None

    async def read(self, fn: Callable[[Reading, *Ts], R], *args: *Ts) -> R:
        """Run `fn(reading, *args)` on a read-only connection in a thread."""
        return await trio.to_thread.run_sync(
            self._read_in_thread, fn, args, limiter=self._reader_limit
        )

    def _read_in_thread(self, fn: Callable[..., R], args: tuple[Any, ...]) -> R:
        try:
            with self.database.reader() as connection:
                return fn(Reading(connection), *args)
        except sqlite3.DatabaseError as error:
            reason = disk_error(error)
            # A query that writes is a bug of ours, whatever the disk.
            if reason is None or error.sqlite_errorcode == sqlite3.SQLITE_READONLY:
                raise
            raise StoreUnavailable(f"it cannot be read: {reason}") from error

    @property
    def waiting(self) -> int:
        """Commands that wait for the writer."""
        return len(self._queue)

    # -- the writer -----------------------------------------------------------

    def writer(self) -> Service:
        """The service that writes; stopped last, it writes all that is queued first."""
        return _Writer(self)

    async def next_batch(self) -> list[_Command]:
        """Wait for commands, and take up to a batch of them."""
        while not self._queue:
            self._wake = trio.Event()
            await self._wake.wait()
        return self.take_batch()

    def take_batch(self) -> list[_Command]:
        """What is queued now, at most a batch."""
        count = min(len(self._queue), self._max_batch)
        return [self._queue.popleft() for _ in range(count)]

    async def run_batch(self, batch: list[_Command]) -> None:
        """Commit a batch, publish, answer. Not interrupted: a write is never abandoned."""
        try:
            with trio.CancelScope(shield=True):
                # Bounded: SQLite's busy timeout and the disk bound the thread's time.
                failure, events = await trio.to_thread.run_sync(self._commit_in_thread, batch)
        except BaseException:
            # Whoever waits cannot be cancelled any more: it must hear something.
            lost = outcome.Error(StoreUnavailable("the writer crashed"))
            for command in batch:
                if command.task is not None:
                    trio.lowlevel.reschedule(command.task, lost)
            raise
        self.commits += 1
        self.commands += len(batch)
        self._note_disk(failure)
        if events:
            self._publish(events)
        for command in batch:
            result = command.outcome
            assert result is not None
            if failure is not None:
                result = outcome.Error(StoreUnavailable(failure))
            if command.task is not None:
                trio.lowlevel.reschedule(command.task, result)
            elif isinstance(result, outcome.Error):
                logger.error("background_write_failed", error=repr(result.error))

    def _commit_in_thread(self, batch: list[_Command]) -> tuple[str | None, list[Event]]:
        connection = self.database.connection
        execute = connection.execute
        tx = Transaction(connection, self._head)
        failure: str | None = None
        try:
            execute("BEGIN IMMEDIATE")
            for command in batch:
                mark = tx.mark()
                execute("SAVEPOINT command")
                try:
                    command.outcome = outcome.Value(command.fn(tx, *command.args))
                except Exception as error:
                    failure = disk_error(error)
                    if failure is not None:
                        raise
                    execute("ROLLBACK TO command")
                    tx.back_to(mark)
                    command.outcome = outcome.Error(error)
                execute("RELEASE command")
            execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the batch failed as a whole, whatever it was
            failure = failure or disk_error(error) or f"the commit failed: {error}"
            if connection.in_transaction:
                connection.rollback()
            unanswered = outcome.Error(StoreUnavailable(failure))
            for command in batch:
                command.outcome = command.outcome or unanswered
            return failure, []
        self._head = tx.head
        return None, tx.events

    def _note_disk(self, failure: str | None) -> None:
        if failure is not None and self.failing is None:
            self.failing, self.failing_since = failure, timestamp()
            logger.critical("store_failing", reason=failure)
        elif failure is None and self.failing is not None:
            logger.warning("store_recovered", reason=self.failing, since=self.failing_since)
            data = {"reason": self.failing, "since": self.failing_since}
            self.failing = self.failing_since = None
            self.submit(_tell_recovered, data)

    def close(self) -> None:
        """Refuse what comes from now on."""
        self._closed = True


def _tell_recovered(tx: Transaction, data: dict[str, str | None]) -> None:
    tx.emit("store.failed", "system/store", data)
    tx.emit("store.recovered", "system/store", data)


def _probe(tx: Transaction) -> None:
    tx.execute(
        "INSERT INTO meta (name, value) VALUES ('probe', ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (str(time.time()),),
    )


class _Writer(Service):
    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self, context: Context) -> None:
        store = self._store
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._probe_failing)
            nursery.start_soon(self._write, context)
            context.ready()
            await context.stopped()
            nursery.cancel_scope.cancel()
        # Whoever stopped before us has been answered; what is left was sent and not awaited.
        while store.waiting:
            await store.run_batch(store.take_batch())

    async def _write(self, context: Context) -> None:
        store = self._store
        while True:
            context.idle()
            batch = await store.next_batch()
            context.begin(f"commit {len(batch)} commands")
            await store.run_batch(batch)

    async def _probe_failing(self) -> None:
        """While the disk refuses, try a small write: it recovers without anybody's request."""
        while True:
            await trio.sleep(PROBE_EVERY)
            if self._store.failing is not None:
                try:
                    await self._store.write(_probe)
                except Rejected as error:
                    logger.debug("store_still_failing", error=str(error))
