"""From the start of the process to /readyz: with a full database, and with an empty one.

Full is 100,000 gateways that are down and 1,000,000 events.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from actors.gateway import records
from api import tokens
from supervisor.database import Database
from supervisor.event import timestamp
from tests.bench.kit import Options, Rounds, Row, Target, folder
from tests.bench.servers import appliance


def run(options: Options) -> list[Row]:
    """See the module."""
    gateways, events = options.pick(100, 100_000), options.pick(1_000, 1_000_000)
    with folder() as full, folder() as empty:
        _fill(full / "state", gateways, events)
        _fill(empty / "state", 0, 0)
        rounds = Rounds(options.pick(1, 5), partial(_start, full), partial(_start, empty))
    return [
        Row(
            f"start to ready with {gateways:,} gateways and {events:,} events",
            rounds.median(0),
            "s",
            "with an empty database",
            rounds.ratio(0, 1),
            Target("<=", 2),
        )
    ]


def _fill(state: Path, gateways: int, events: int) -> None:
    database = Database(state, [records.migrations, tokens.migrations])
    connection = database.connection
    now = timestamp()
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    columns = len(connection.execute("PRAGMA table_info(gateways)").fetchall())
    row = ("down", "trivial", "room", "{}", None, None, "node", "stopped", "s", 0.0, 0, 0, now)
    assert columns == len(row) + 1
    connection.executemany(
        f"INSERT INTO gateways VALUES ({', '.join('?' * columns)})",
        ((f"gw{n:06}", *row) for n in range(gateways)),
    )
    data = '{"main_app":"trivial","reason":"asked for","force":false}'
    connection.executemany(
        "INSERT INTO events (seq, ts, type, subject, data) VALUES (?, ?, ?, ?, ?)",
        (
            (n, now, "gateway.stopped", f"gateway/gw{n % (gateways or 1):06}", data)
            for n in range(1, events + 1)
        ),
    )
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def _start(place: Path) -> float:
    began = time.perf_counter()
    with appliance(place):
        return time.perf_counter() - began
