"""Looking calls up: lists of them, what was told of one, and which are to be summed up."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.call.messages import Json
from actors.call.records import COLUMNS, Call, call_of, found, subject
from supervisor.transaction import Reading, Transaction


class Filter(msgspec.Struct, frozen=True):
    """What a list of calls is narrowed by; empty is any."""

    status: str = ""
    tenant_id: str = ""
    phone_number_id: str = ""
    number: str = ""
    outcome: str = ""
    provider_call_id: str = ""
    since: str = ""
    until: str = ""


# A list shows neither, and both may be large.
_LISTED = COLUMNS.replace("timeline", "NULL").replace("summary", "NULL")
_FILTERS = {
    "status": "status = ?",
    "tenant_id": "tenant_id = ?",
    "phone_number_id": "phone_number_id = ?",
    "number": "(caller = ? OR callee = ?)",
    "outcome": "outcome = ?",
    "provider_call_id": "provider_call_id = ?",
    "since": "started_at >= ?",
    "until": "started_at < ?",
}


def page(db: Reading, wanted: Filter, before: int, limit: int) -> list[Call]:
    """Calls with a number below `before`, the newest first."""
    where, values = ["number < ?"], [before]
    for name, condition in _FILTERS.items():
        value: Any = getattr(wanted, name)
        if value:
            where.append(condition)
            values += [value] * condition.count("?")
    rows = db.all(
        f"SELECT {_LISTED} FROM calls WHERE {' AND '.join(where)}"  # noqa: S608
        " ORDER BY number DESC LIMIT ?",
        (*values, limit),
    )
    return [call_of(row) for row in rows]


class KeptEvent(msgspec.Struct, frozen=True):
    """An event of a call; `place` is its number in the order of arrival."""

    ts: str
    type: str
    payload: msgspec.Raw
    place: int


def events(
    db: Reading, number: int, after: tuple[str, int] = ("", 0), limit: int = 2**31
) -> list[KeptEvent]:
    """A call's events in the order of their times, from after (time, place)."""
    rows = db.all(
        "SELECT ts, type, payload, place FROM call_events"
        " WHERE call = ? AND (ts > ? OR (ts = ? AND place > ?)) ORDER BY ts, place LIMIT ?",
        (number, after[0], after[0], after[1], limit),
    )
    return [KeptEvent(ts, kind, msgspec.Raw(data.encode()), at) for ts, kind, data, at in rows]


def with_events(db: Reading, call_id: str) -> tuple[Call, list[KeptEvent]]:
    """A call and all its events. Raises Rejected `not_found`."""
    call = found(db, call_id)
    return call, events(db, call.number)


# -- summaries -------------------------------------------------------------------------


def to_sum_up(db: Reading, limit: int) -> list[Call]:
    """Calls that are over and of which there is no summary yet, or not of all events."""
    rows = db.all(
        f"SELECT {COLUMNS} FROM calls WHERE closed_at IS NOT NULL AND summary IS NULL"  # noqa: S608
        " ORDER BY number LIMIT ?",
        (limit,),
    )
    return [call_of(row) for row in rows]


def sum_up(tx: Transaction, call: Call, summary: Json) -> None:
    """Keep a summary, unless events have come since the call was read."""
    changed = tx.execute(
        "UPDATE calls SET summary = ?, outcome = ?"
        " WHERE number = ? AND events = ? AND end_hash = ? AND summary IS NULL",
        (
            msgspec.json.encode(summary).decode(),
            summary["outcome"],
            call.number,
            call.events,
            call.end_hash,
        ),
    )
    if changed:
        tx.emit("call.summed_up", subject(call.call_id), summary)
