"""Writes by 64 writers at once, each answered when it is on disk (`synchronous=FULL`).

The Store's group commit is beside the same Store with one command in a transaction, and beside
plain sqlite3 with one commit for each write, in a thread. All write the same row and event to the
same file system.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import trio

from supervisor.bus import EventLog
from supervisor.database import Database
from supervisor.event import timestamp
from supervisor.spec import ChildSpec
from supervisor.store import MAX_BATCH, Store
from supervisor.transaction import Transaction
from tests.bench.kit import Options, Rounds, Row, Target, folder
from tests.bench.protocol import tree

WRITERS = 64
_SET = (
    "INSERT INTO meta (name, value) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_EVENT = "INSERT INTO events (seq, ts, type, subject, data) VALUES (?, ?, ?, ?, ?)"


def run(options: Options) -> list[Row]:
    """See the module."""
    many, few = options.pick(2, 150), options.pick(1, 8)
    rounds = Rounds(
        options.pick(1, 5),
        lambda: trio.run(_through_store, many, MAX_BATCH),
        lambda: trio.run(_through_store, few, 1),
        lambda: trio.run(_plain, few),
    )
    value = rounds.median(0)
    name = f"durable writes by {WRITERS} writers"
    return [
        Row(
            name,
            value,
            "write/s",
            "sqlite3, one commit each",
            rounds.ratio(0, 2),
            Target(">=", 8),
        ),
        Row(name, value, "write/s", "Store with max_batch=1", rounds.ratio(0, 1), Target(">=", 8)),
    ]


def _write(tx: Transaction, writer: int, number: int) -> None:
    tx.execute(_SET, (f"writer{writer}", str(number)))
    tx.emit("bench.written", f"writer/{writer}", {"number": number})


async def _through_store(each: int, max_batch: int) -> float:
    with folder() as place:
        database = Database(place)
        log = EventLog(database.epoch, database.head, database.first)
        store = Store(database, log.publish, max_batch)
        async with tree() as top:
            await top.start_child(ChildSpec("store", store.writer)).settled()

            async def writer(which: int) -> None:
                for number in range(each):
                    await store.write(_write, which, number)

            began = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for which in range(WRITERS):
                    nursery.start_soon(writer, which)
            took = time.perf_counter() - began
        database.close()
    return WRITERS * each / took


async def _plain(each: int) -> float:
    with folder() as place:
        connection = _open(place)
        one_at_a_time = trio.CapacityLimiter(1)
        head = 0

        def write(which: int, number: int) -> None:
            nonlocal head
            head += 1
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SET, (f"writer{which}", str(number)))
            data = f'{{"number":{number}}}'
            connection.execute(
                _EVENT, (head, timestamp(), "bench.written", f"writer/{which}", data)
            )
            connection.execute("COMMIT")

        async def writer(which: int) -> None:
            for number in range(each):
                await trio.to_thread.run_sync(write, which, number, limiter=one_at_a_time)

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for which in range(WRITERS):
                nursery.start_soon(writer, which)
        took = time.perf_counter() - began
        connection.close()
    return WRITERS * each / took


def _open(place: Path) -> sqlite3.Connection:
    """A database with the Store's tables and settings."""
    Database(place).close()
    connection = sqlite3.connect(
        place / "switchboard.db", isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection
