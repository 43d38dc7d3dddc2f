"""Endpoints in the database: their places in the log, their lives, and what retention forgets.

What they are sent is in delivery_records.py. All SQL of webhooks is in these two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlite_utils
from sqlite_utils import Migrations

from actors.webhook.machine import State
from supervisor.event import timestamp
from supervisor.transaction import Reading, Transaction

migrations = Migrations("webhook")


@migrations(name="0001_webhooks")
def _webhooks(db: sqlite_utils.Database) -> None:
    db.execute(
        """
        CREATE TABLE webhook_endpoints (
            name TEXT PRIMARY KEY,
            epoch TEXT NOT NULL,
            seq INTEGER NOT NULL,
            settings TEXT NOT NULL,
            disabled TEXT NOT NULL,
            since TEXT NOT NULL,
            removed TEXT NOT NULL,
            last_success TEXT NOT NULL,
            last_failure TEXT NOT NULL,
            last_error TEXT NOT NULL
        )
        """
    )
    db.execute(
        """
        CREATE TABLE webhook_deliveries (
            endpoint TEXT NOT NULL,
            seq INTEGER NOT NULL,
            id TEXT NOT NULL,
            ts TEXT NOT NULL,
            type TEXT NOT NULL,
            subject TEXT NOT NULL,
            data TEXT NOT NULL,
            once INTEGER NOT NULL,
            state TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            due TEXT NOT NULL,
            status INTEGER,
            error TEXT NOT NULL,
            answer TEXT NOT NULL,
            seconds REAL NOT NULL,
            created TEXT NOT NULL,
            changed TEXT NOT NULL,
            PRIMARY KEY (endpoint, seq)
        )
        """
    )
    # What is over is never looked at by these, however much of it is kept. SQLite takes such an
    # index only for a query that has its condition word for word.
    db.execute(
        "CREATE INDEX webhook_open ON webhook_deliveries (endpoint, state, seq)"
        " WHERE state <> 'delivered'"
    )
    db.execute(
        "CREATE INDEX webhook_once ON webhook_deliveries (endpoint, subject, created)"
        " WHERE once = 1"
    )
    db.execute("CREATE INDEX webhook_over ON webhook_deliveries (changed) WHERE state <> 'pending'")
    # The logs that this database has been: events after `after` are of `epoch`.
    db.execute("CREATE TABLE webhook_epochs (epoch TEXT PRIMARY KEY, after INTEGER NOT NULL)")


@migrations(name="0002_subjects")
def _subjects(db: sqlite_utils.Database) -> None:
    # What is erased is erased by its subject.
    db.execute("CREATE INDEX webhook_subjects ON webhook_deliveries (subject)")


# -- the log's epochs -------------------------------------------------------------


def note_epoch(tx: Transaction, epoch: str, head: int) -> None:
    """At the start, before anything is written: the log goes on after `head` as `epoch`."""
    first = tx.value("SELECT count(*) FROM webhook_epochs") == 0
    tx.execute(
        "INSERT INTO webhook_epochs (epoch, after) VALUES (?, ?) ON CONFLICT (epoch) DO NOTHING",
        (epoch, 0 if first else head),
    )


# -- an endpoint's life -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opening:
    """An endpoint as its row has it when its actor begins."""

    seq: int
    disabled: str
    since: str
    dead: int


def open_endpoint(tx: Transaction, name: str, settings: str, epoch: str) -> Opening:
    """The row of an endpoint; a new one begins at the head of the log.

    `settings` stands for its section of the configuration: another one enables it again.
    """
    row = tx.one(
        "SELECT epoch, seq, settings, disabled, since FROM webhook_endpoints WHERE name = ?",
        (name,),
    )
    if row is None:
        _begin(tx, name, epoch, settings)
        return Opening(tx.head, "", "", 0)
    was_in, seq, before, disabled, since = row
    if was_in != epoch:
        # The database was restored, and cursor and log with it: reading goes on where it was, and
        # what happened after the backup is in no log any more.
        tell_gap(tx, name, "epoch", f"{was_in}:{seq}", seq + 1, None)
    if before != settings and disabled:
        disabled = since = ""
        tx.emit("webhook.enabled", subject_of(name), {"by": "configuration"})
    tx.execute(
        "UPDATE webhook_endpoints SET epoch = ?, settings = ?, disabled = ?, since = ?,"
        " removed = '' WHERE name = ?",
        (epoch, settings, disabled, since, name),
    )
    return Opening(seq, disabled, since, count_dead(tx, name))


def note_configured(tx: Transaction, names: Sequence[str], epoch: str) -> None:
    """New ones begin at the head; those that are not configured any more retention forgets."""
    known: dict[str, str] = dict(tx.all("SELECT name, removed FROM webhook_endpoints"))
    for name in names:
        if name not in known:
            _begin(tx, name, epoch, "")
        elif known[name]:
            tx.execute("UPDATE webhook_endpoints SET removed = '' WHERE name = ?", (name,))
    now = timestamp()
    tx.execute_many(
        "UPDATE webhook_endpoints SET removed = ? WHERE name = ?",
        [(now, name) for name, removed in known.items() if name not in names and not removed],
    )


def _begin(tx: Transaction, name: str, epoch: str, settings: str) -> None:
    tx.execute(
        "INSERT INTO webhook_endpoints (name, epoch, seq, settings, disabled, since, removed,"
        " last_success, last_failure, last_error) VALUES (?, ?, ?, ?, '', '', '', '', '', '')",
        (name, epoch, tx.head, settings),
    )


def enable(tx: Transaction, name: str, caller: str) -> bool:
    """Go on with a disabled endpoint, and say so; False when it was not."""
    changed = tx.execute(
        "UPDATE webhook_endpoints SET disabled = '', since = '' WHERE name = ? AND disabled <> ''",
        (name,),
    )
    if changed:
        tx.emit("webhook.enabled", subject_of(name), {"by": caller})
    return changed > 0


def move_cursor(tx: Transaction, name: str, seq: int) -> None:
    """All up to this number has been looked at."""
    tx.execute("UPDATE webhook_endpoints SET seq = ? WHERE name = ? AND seq < ?", (seq, name, seq))


def pass_gap(tx: Transaction, name: str, reason: str, requested: str, first: int) -> None:
    """Events were deleted before this endpoint read them: go on at `first`, and say so."""
    seq = tx.value("SELECT seq FROM webhook_endpoints WHERE name = ?", (name,))
    tell_gap(tx, name, reason, requested, first, first - 1 - seq)
    move_cursor(tx, name, first - 1)


def tell_gap(
    tx: Transaction, name: str, reason: str, requested: str, first: int, missed: int | None
) -> None:
    """Say that events cannot be told to an endpoint; how many of any topic, where it is known."""
    data = {"reason": reason, "requested": requested, "first": first, "missed": missed}
    tx.emit("webhook.gap", subject_of(name), data)


def subject_of(name: str) -> str:
    """Of the events that tell of an endpoint."""
    return f"webhook/{name}"


def disable(tx: Transaction, name: str, reason: str, now: str) -> None:
    """Send it nothing more, and say so once."""
    changed = tx.execute(
        "UPDATE webhook_endpoints SET disabled = ?, since = ? WHERE name = ? AND disabled = ''",
        (reason, now, name),
    )
    if changed:
        tx.emit("webhook.disabled", subject_of(name), {"reason": reason})


def count_dead(db: Reading, name: str) -> int:
    """How many an endpoint has."""
    return int(
        db.value(
            "SELECT count(*) FROM webhook_deliveries"
            " WHERE endpoint = ? AND state = 'dead' AND state <> 'delivered'",
            (name,),
        )
    )


# -- what is shown ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Overview:
    """An endpoint's row with its counts; `removed` since when it is not configured, or empty."""

    name: str
    epoch: str
    seq: int
    disabled: str
    since: str
    removed: str
    last_success: str
    last_failure: str
    last_error: str
    pending: int
    dead: int


def overview(db: Reading) -> list[Overview]:
    """All endpoints that have a row, in the order of their names."""
    rows = db.all(
        "SELECT name, epoch, seq, disabled, since, removed, last_success, last_failure, last_error"
        " FROM webhook_endpoints ORDER BY name"
    )
    counts = {
        (endpoint, state): count
        for endpoint, state, count in db.all(
            "SELECT endpoint, state, count(*) FROM webhook_deliveries"
            " WHERE state <> 'delivered' GROUP BY endpoint, state"
        )
    }
    states = (State.PENDING.value, State.DEAD.value)
    return [
        Overview(*(*row, *(counts.get((row[0], state), 0) for state in states))) for row in rows
    ]


def known(db: Reading, name: str) -> bool:
    """Is there such an endpoint, or was there one?"""
    return db.one("SELECT 1 FROM webhook_endpoints WHERE name = ?", (name,)) is not None


# -- retention ------------------------------------------------------------------------------


def forget_old(tx: Transaction, before: str, limit: int) -> int:
    """Delete up to `limit` deliveries that were over before a time; how many.

    Nothing that is still to be sent is deleted, but with an endpoint that was removed from the
    configuration before that time.
    """
    gone = tx.execute(
        "DELETE FROM webhook_deliveries WHERE (endpoint, seq) IN (SELECT endpoint, seq"
        " FROM webhook_deliveries WHERE state <> 'pending' AND changed < ?"
        " ORDER BY changed LIMIT ?)",
        (before, limit),
    )
    if gone < limit:
        for (name,) in tx.all(
            "SELECT name FROM webhook_endpoints WHERE removed <> '' AND removed < ?", (before,)
        ):
            gone += tx.execute(
                "DELETE FROM webhook_deliveries WHERE endpoint = ? AND seq IN"
                " (SELECT seq FROM webhook_deliveries WHERE endpoint = ? LIMIT ?)",
                (name, name, limit),
            )
            if not tx.value("SELECT count(*) FROM webhook_deliveries WHERE endpoint = ?", (name,)):
                tx.execute("DELETE FROM webhook_endpoints WHERE name = ?", (name,))
    return min(gone, limit)
