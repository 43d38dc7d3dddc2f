"""What a command sees of the database while it runs in the writer's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from supervisor.event import Event, timestamp

Row = tuple[Any, ...]
Parameters = Sequence[Any] | Mapping[str, Any]

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Reading:
    """Queries, in the subset of SQL that SQLite and PostgreSQL share."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """The first row, or None."""
        row: Row | None = self._connection.execute(sql, parameters).fetchone()
        return row

    def all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """All rows: the caller limits them."""
        return self._connection.execute(sql, parameters).fetchall()

    def value(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first column of the first row, or None."""
        row = self._connection.execute(sql, parameters).fetchone()
        return None if row is None else row[0]


class Transaction(Reading):
    """A command's changes and the events that tell of them: kept together or not at all."""

    __slots__ = ("_pending", "head")

    def __init__(self, connection: sqlite3.Connection, head: int) -> None:
        super().__init__(connection)
        self.head = head
        self._pending: list[Event] = []

    def execute(self, sql: str, parameters: Parameters = ()) -> int:
        """Run a statement; how many rows it changed."""
        return self._connection.execute(sql, parameters).rowcount

    def execute_many(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Run a statement for each of the rows; how many rows it changed."""
        return self._connection.executemany(sql, rows).rowcount

    def emit(self, type: str, subject: str, data: object = None) -> int:
        """Add an event to the log; its sequence number.

        `data` is anything that msgspec encodes to a JSON object. No secrets: events are shown
        to everybody who may read the log.
        """
        seq = self.head + 1
        raw = _encode({} if data is None else data)
        ts = timestamp()
        self._connection.execute(
            "INSERT INTO events (seq, ts, type, subject, data) VALUES (?, ?, ?, ?, ?)",
            (seq, ts, type, subject, raw.decode()),
        )
        self.head = seq
        self._pending.append(Event(seq, ts, type, subject, msgspec.Raw(raw)))
        return seq

    # -- for the writer -------------------------------------------------------

    def mark(self) -> tuple[int, int]:
        """Where to come back to when the command fails."""
        return self.head, len(self._pending)

    def back_to(self, mark: tuple[int, int]) -> None:
        """Forget the events since the mark; their rows went with the savepoint."""
        self.head, kept = mark
        del self._pending[kept:]

    @property
    def events(self) -> list[Event]:
        """What is to be published once this is committed."""
        return self._pending
