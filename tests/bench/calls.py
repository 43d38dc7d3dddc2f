"""Events of 200 live calls, durable, in batches of 1, 10 and 100; and what a live call costs.

Beside FastAPI on uvicorn over SQLite that commits each request at the same `synchronous` setting,
and beside SQLite itself, which is handed 1,000 events in each transaction.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil

from actors.call import records, schema
from actors.call.messages import NewCall
from supervisor.database import Database
from supervisor.transaction import Transaction
from tests.bench.kit import Options, Rounds, Row, Target, folder, fresh
from tests.bench.servers import Server, appliance, free_port, host, process, until_up, write_config

LIVE = 200
BATCHES = (1, 10, 100)


def run(options: Options) -> list[Row]:
    """See the module."""
    rows: list[Row] = []
    live = options.pick(4, LIVE)
    seconds = 0.3 if options.quick else 3.0
    with (
        folder() as place,
        appliance(place) as ours,
        folder() as other,
        host("rivals", "calls", str(other / "calls.db")) as fastapi,
    ):
        for batch in BATCHES:
            rows += _events(options, ours, fastapi, place, live, batch, seconds)
    # In one that has done nothing yet: what is freed is taken again first.
    with folder() as place, appliance(place) as idle:
        rows.append(_memory(options, idle))
    rows.append(_restart(options))
    return rows


def _events(
    options: Options,
    ours: Server,
    fastapi: Server,
    place: Path,
    live: int,
    batch: int,
    seconds: float,
) -> list[Row]:
    mine, theirs = _begin(ours, live), _begin(fastapi, live)

    def load(server: Server, calls: list[str], probe: bool = False) -> dict[str, float]:
        found: dict[str, float] = fresh(
            "call_load:events", server.port, server.authorization, calls, batch, seconds, probe
        )
        return found

    rounds = Rounds(
        options.pick(1, 3),
        lambda: load(ours, mine)["rate"],
        lambda: load(fastapi, theirs)["rate"],
        partial(_sqlite, place, options.pick(2, 60)),
    )
    # Apart from the rates: who starts calls all the time is a load that the others do not have.
    slow = load(ours, mine, probe=True)
    name = f"events of {live} live calls, {batch} a request"
    rate = rounds.median(0)
    rows = [
        Row(
            name, rate, "event/s", "FastAPI and SQLite, a commit each", rounds.ratio(0, 1),
            Target(">", 1),
        ),
        Row(name, rate, "event/s", "SQLite itself, 1,000 a commit", rounds.ratio(0, 2)),
    ]  # fmt: skip
    for kind in ("start", "resolve"):
        rows.append(Row(f"p99 of a {kind} beside that", slow[kind], "ms"))
    return rows


def _begin(server: Server, count: int) -> list[str]:
    prefix = secrets.token_hex(4)
    found = fresh("call_load:start", server.port, server.authorization, prefix, count)
    return [str(call_id) for call_id in found]


def _sqlite(place: Path, commits: int) -> float:
    """Events a second into a table like ours."""
    with closing(sqlite3.connect(place / f"{secrets.token_hex(4)}.db")) as database:
        database.isolation_level = None
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(
            "CREATE TABLE call_events (call INTEGER, place INTEGER, ts TEXT, type TEXT,"
            " payload TEXT, key TEXT, UNIQUE (call, key))"
        )
        payload = '{"tag":"CALLER","text":"what somebody says, 1795269651234567890 123456"}'
        began = time.perf_counter()
        for commit in range(commits):
            database.execute("BEGIN IMMEDIATE")
            database.executemany(
                "INSERT INTO call_events VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [
                    (n % LIVE, n, "2026-01-01T08:00:01.000000Z", "transcript", payload,
                     secrets.token_hex(16))
                    for n in range(commit * 1000, commit * 1000 + 1000)
                ],
            )  # fmt: skip
            database.execute("COMMIT")
        return commits * 1000 / (time.perf_counter() - began)


def _memory(options: Options, server: Server) -> Row:
    count = options.pick(50, 5000)
    process = psutil.Process(server.pid)
    _begin(server, options.pick(10, 500))
    before = process.memory_info().rss
    _begin(server, count)
    each = (process.memory_info().rss - before) / 1024 / count
    return Row("memory of a live call", max(each, 0.01), "KiB")


def _restart(options: Options) -> Row:
    """From its start until it is ready, with calls that were live when it ended."""
    count = options.pick(100, 10_000)
    with folder() as place, folder() as empty:
        _fill(place, count)
        rounds = Rounds(options.pick(1, 3), partial(_up, place), partial(_up, empty))
    name = f"start to ready with {count:,} live calls"
    return Row(name, rounds.median(0), "s", "the same with none", rounds.ratio(0, 1))


def _fill(place: Path, count: int) -> None:
    """A state folder of an appliance that was killed with so many live calls."""
    with appliance(place):
        pass
    database = Database(place / "state", [schema.migrations])
    connection = database.connection
    connection.execute("BEGIN IMMEDIATE")
    tx = Transaction(connection, database.head)
    for n in range(count):
        new = NewCall(
            "bench", f"c{n}", "", "demo", "demo", "demo", 1, "+4930123456", "+911234567890",
            "+4930123456", "+911234567890", "2026-01-01T08:00:01.000000Z", str(n),
        )  # fmt: skip
        records.start(tx, f"call-{n}", new)
    connection.execute("COMMIT")
    database.close()


def _up(place: Path) -> float:
    port = free_port()
    file = write_config(place, port, secrets.token_hex(8))
    began = time.perf_counter()
    with process(["-m", "api.cli", "serve", "--config", str(file)], place / "log") as running:
        until_up(Server(port, running.pid), "/readyz", running)
        return time.perf_counter() - began
