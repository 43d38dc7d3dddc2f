"""Endpoints and their deliveries in the database. All SQL of this kind is here.

A delivery is known by the number of its event: an event is queued for an endpoint once, whatever
happens in between. Its `webhook-id` is made of the log's epoch and that number, so that it stays
the same over tries, restarts and a restored backup, and never stands for two events.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import sqlite_utils
from sqlite_utils import Migrations

from actors.webhook.machine import Next, Outcome, State
from actors.webhook.messages import DeliveryView
from actors.webhook.selection import KIND
from supervisor.event import Event, timestamp
from supervisor.transaction import Reading, Row, Transaction

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
    # What is over is never looked at by these, however much of it is kept.
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


# -- the log's epochs -------------------------------------------------------------


def note_epoch(tx: Transaction, epoch: str, head: int) -> None:
    """At the start, before anything is written: the log goes on after `head` as `epoch`."""
    first = tx.value("SELECT count(*) FROM webhook_epochs") == 0
    tx.execute(
        "INSERT INTO webhook_epochs (epoch, after) VALUES (?, ?) ON CONFLICT (epoch) DO NOTHING",
        (epoch, 0 if first else head),
    )


def _epoch_of(epochs: Sequence[Row], seq: int) -> str:
    found = ""
    for epoch, after in epochs:
        if after < seq or not found:
            found = epoch
    return found


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
        tx.emit("webhook.enabled", _subject(name), {"by": "configuration"})
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
        tx.emit("webhook.enabled", _subject(name), {"by": caller})
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
    tx.emit("webhook.gap", _subject(name), data)


def _subject(name: str) -> str:
    return f"webhook/{name}"


# -- the outbox -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fresh:
    """An event to be told; `once`: unless its subject was told of such within `once_hours`."""

    event: Event
    once: bool


def queue(
    tx: Transaction, name: str, fresh: Sequence[Fresh], once_hours: float, cursor: int
) -> list[tuple[int, str]]:
    """Queue events and move the cursor past them: (seq, subject) of those that are to be sent."""
    epochs = tx.all("SELECT epoch, after FROM webhook_epochs ORDER BY after")
    now = timestamp()
    horizon = _ago(once_hours * 3600)
    queued = []
    for it in fresh:
        event = it.event
        if it.once and _told(tx, name, event.subject, horizon):
            continue
        added = tx.execute(
            "INSERT INTO webhook_deliveries (endpoint, seq, id, ts, type, subject, data, once,"
            " state, attempts, due, status, error, answer, seconds, created, changed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending', 0, '', NULL, '', '', 0, ?, ?)"
            " ON CONFLICT (endpoint, seq) DO NOTHING",
            (
                name,
                event.seq,
                f"msg_{_epoch_of(epochs, event.seq)}_{event.seq}",
                event.ts,
                event.type,
                event.subject,
                bytes(event.data).decode(),
                int(it.once),
                now,
                now,
            ),
        )
        if added:
            queued.append((event.seq, event.subject))
    move_cursor(tx, name, cursor)
    return queued


def _told(tx: Transaction, name: str, subject: str, horizon: str) -> bool:
    found = tx.value(
        "SELECT 1 FROM webhook_deliveries"
        " WHERE endpoint = ? AND subject = ? AND created > ? AND once = 1 AND state <> 'dead'"
        " LIMIT 1",
        (name, subject, horizon),
    )
    return found is not None


def pending(db: Reading, name: str) -> list[tuple[int, str, int, str]]:
    """What is to be sent: (seq, subject, attempts, due)."""
    rows = db.all(
        "SELECT seq, subject, attempts, due FROM webhook_deliveries"
        " WHERE endpoint = ? AND state = 'pending' ORDER BY seq",
        (name,),
    )
    return [(seq, subject, attempts, due) for seq, subject, attempts, due in rows]


@dataclass(frozen=True, slots=True)
class Letter:
    """What a delivery is made of; `data` is JSON."""

    id: str
    seq: int
    epoch: str
    ts: str
    type: str
    subject: str
    data: str


def letter(db: Reading, name: str, seq: int) -> Letter | None:
    """A delivery that is to be sent; None when there is none (any more)."""
    row = db.one(
        "SELECT id, seq, ts, type, subject, data FROM webhook_deliveries"
        " WHERE endpoint = ? AND seq = ? AND state = 'pending'",
        (name, seq),
    )
    if row is None:
        return None
    msg_id, seq, *rest = row
    return Letter(msg_id, seq, msg_id.split("_")[1], *rest)


def settle(tx: Transaction, name: str, seq: int, outcome: Outcome, after: Next) -> str:
    """Keep how a try ended, and say what must be said; why the endpoint is disabled, if it is.

    A 2xx is no event: the receiver knows, and the delivery log has it.
    """
    now = timestamp()
    over = after.state is State.DELIVERED
    due = "" if after.state is not State.PENDING else _ago(-after.wait)
    tx.execute(
        "UPDATE webhook_deliveries SET state = ?, attempts = ?, due = ?, status = ?, error = ?,"
        " answer = ?, seconds = ?, changed = ?, data = CASE WHEN ? THEN '' ELSE data END"
        " WHERE endpoint = ? AND seq = ?",
        (
            after.state.value,
            after.attempts,
            due,
            outcome.status,
            outcome.reason,
            outcome.answer,
            outcome.seconds,
            now,
            over,
            name,
            seq,
        ),
    )
    if over:
        tx.execute("UPDATE webhook_endpoints SET last_success = ? WHERE name = ?", (now, name))
    else:
        tx.execute(
            "UPDATE webhook_endpoints SET last_failure = ?, last_error = ? WHERE name = ?",
            (now, outcome.reason, name),
        )
    if after.state is State.DEAD:
        _tell_dead(tx, name, seq, outcome, after)
    return _disable(tx, name, outcome.reason, now) if after.disable else ""


def _tell_dead(tx: Transaction, name: str, seq: int, outcome: Outcome, after: Next) -> None:
    row = tx.one(
        "SELECT id, type, subject FROM webhook_deliveries WHERE endpoint = ? AND seq = ?",
        (name, seq),
    )
    # What webhooks tell of themselves ends here: two endpoints that are told of each other's dead
    # letters would go on for ever.
    if row is None or row[1].partition(".")[0] == KIND:
        return
    data = {
        "id": row[0],
        "seq": seq,
        "type": row[1],
        "subject": row[2],
        "attempts": after.attempts,
        "status": outcome.status,
        "error": outcome.reason,
    }
    tx.emit("webhook.dead_letter", _subject(name), data)


def _disable(tx: Transaction, name: str, reason: str, now: str) -> str:
    changed = tx.execute(
        "UPDATE webhook_endpoints SET disabled = ?, since = ? WHERE name = ? AND disabled = ''",
        (reason, now, name),
    )
    if changed:
        tx.emit("webhook.disabled", _subject(name), {"reason": reason})
    return reason


# -- dead letters -----------------------------------------------------------------------


def count_dead(db: Reading, name: str) -> int:
    """How many an endpoint has."""
    return int(
        db.value(
            "SELECT count(*) FROM webhook_deliveries WHERE endpoint = ? AND state = 'dead'",
            (name,),
        )
    )


def redrive(
    tx: Transaction, name: str, ids: Sequence[str] | None, room: int
) -> tuple[list[tuple[int, str]], int]:
    """Make dead letters pending again, the oldest first, as many as there is room for.

    Returns (seq, subject) of those, and how many are dead still.
    """
    if ids is None:
        rows = tx.all(
            "SELECT seq, subject FROM webhook_deliveries"
            " WHERE endpoint = ? AND state = 'dead' ORDER BY seq LIMIT ?",
            (name, room),
        )
    else:
        rows = []
        for msg_id in ids:
            rows += tx.all(
                "SELECT seq, subject FROM webhook_deliveries"
                " WHERE endpoint = ? AND seq = ? AND id = ? AND state = 'dead'",
                (name, _number(msg_id), msg_id),
            )
        rows = sorted(set(rows))[:room]
    now = timestamp()
    tx.execute_many(
        "UPDATE webhook_deliveries SET state = 'pending', attempts = 0, due = '', changed = ?"
        " WHERE endpoint = ? AND seq = ?",
        [(now, name, seq) for seq, _subject in rows],
    )
    return [(seq, subject) for seq, subject in rows], count_dead(tx, name)


def _number(id: str) -> int:
    """An id ends with the number that its row is found by."""
    number = id.rpartition("_")[2]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 19 else -1


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


_SHOWN = (
    "id, seq, type, subject, state, attempts, due, status, error, answer, seconds, created, changed"
)


def page(db: Reading, name: str, state: str | None, before: int, limit: int) -> list[DeliveryView]:
    """Deliveries, the newest first, of events before a number."""
    where, values = "endpoint = ? AND seq < ?", [name, before]
    if state is not None:
        where += " AND state = ?"
        values.append(state)
    rows = db.all(
        f"SELECT {_SHOWN} FROM webhook_deliveries WHERE {where} ORDER BY seq DESC LIMIT ?",  # noqa: S608 - constants
        (*values, limit),
    )
    names = _SHOWN.split(", ")
    return [DeliveryView(**dict(zip(names, row, strict=True))) for row in rows]


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


def _ago(seconds: float) -> str:
    return timestamp(datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds))


def seconds_until(due: str, most: float) -> float:
    """How long a stored time is away: at most `most`, whatever the clock did meanwhile."""
    if not due:
        return 0.0
    left = datetime.datetime.fromisoformat(due) - datetime.datetime.now(datetime.UTC)
    return min(max(left.total_seconds(), 0.0), most)
