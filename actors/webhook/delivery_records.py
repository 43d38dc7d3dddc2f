"""What endpoints are sent, in the database: the outbox, how tries ended, dead letters.

A delivery is known by the number of its event: an event is queued for an endpoint once, whatever
happens in between. Its `webhook-id` is made of the log's epoch and that number, so that it stays
the same over tries, restarts and a restored backup, and never stands for two events.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from actors.webhook.machine import Next, Outcome, State
from actors.webhook.messages import DeliveryView
from actors.webhook.records import count_dead, disable, move_cursor, subject_of
from actors.webhook.selection import KIND
from supervisor.event import Event, timestamp
from supervisor.transaction import Reading, Row, Transaction

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
        " WHERE endpoint = ? AND state = 'pending' AND state <> 'delivered' ORDER BY seq",
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
    if not after.disable:
        return ""
    disable(tx, name, outcome.reason, now)
    return outcome.reason


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
    tx.emit("webhook.dead_letter", subject_of(name), data)


def _epoch_of(epochs: Sequence[Row], seq: int) -> str:
    found = ""
    for epoch, after in epochs:
        if after < seq or not found:
            found = epoch
    return found


# -- dead letters -----------------------------------------------------------------------


def redrive(
    tx: Transaction, name: str, ids: Sequence[str] | None, room: int
) -> tuple[list[tuple[int, str]], int]:
    """Make dead letters pending again, the oldest first, as many as there is room for.

    Returns (seq, subject) of those, and how many are dead still.
    """
    if ids is None:
        rows = tx.all(
            "SELECT seq, subject FROM webhook_deliveries"
            " WHERE endpoint = ? AND state = 'dead' AND state <> 'delivered' ORDER BY seq LIMIT ?",
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

_SHOWN = (
    "id, seq, type, subject, state, attempts, due, status, error, answer, seconds, created, changed"
)


def page(db: Reading, name: str, state: str | None, before: int, limit: int) -> list[DeliveryView]:
    """Deliveries, the newest first, of events before a number."""
    where, values = "endpoint = ? AND seq < ?", [name, before]
    if state is not None:
        where += " AND state = ?"
        values.append(state)
        if state != State.DELIVERED.value:
            where += " AND state <> 'delivered'"
    rows = db.all(
        f"SELECT {_SHOWN} FROM webhook_deliveries WHERE {where} ORDER BY seq DESC LIMIT ?",  # noqa: S608 - constants
        (*values, limit),
    )
    names = _SHOWN.split(", ")
    return [DeliveryView(**dict(zip(names, row, strict=True))) for row in rows]


# -- times -------------------------------------------------------------------------------


def seconds_until(due: str, most: float) -> float:
    """How long a stored time is away: at most `most`, whatever the clock did meanwhile."""
    if not due:
        return 0.0
    left = datetime.datetime.fromisoformat(due) - datetime.datetime.now(datetime.UTC)
    return min(max(left.total_seconds(), 0.0), most)


def _ago(seconds: float) -> str:
    return timestamp(datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds))
