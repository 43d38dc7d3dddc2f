"""Calls and their events in the database."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from actors.call import machine
from actors.call.machine import Standing, Status, Verdict
from actors.call.messages import Batch, Closed, EndCall, EventRow, Json, NewCall
from actors.call.stamp import milliseconds
from supervisor.errors import Rejected
from supervisor.event import timestamp
from supervisor.transaction import Reading, Row, Transaction

# Events of a call that one event of the log tells, and how large their payloads may be together.
TOLD_AT_ONCE = 100
TOLD_BYTES = 64 * 1024
# Keys that are looked up in one query.
KEYS_AT_ONCE = 500
MOST_ARTIFACTS = 64
# What is said and what we count may differ by so many seconds.
TOLERANCE = 2.0
IDLE = "no event for too long"

_json = msgspec.json
_encode = msgspec.json.Encoder().encode


class Call(msgspec.Struct):
    """One call. Times as RFC 3339 in UTC; durations in seconds."""

    number: int
    call_id: str
    provider: str
    provider_call_id: str
    provider_stream_id: str
    phone_number_id: str
    tenant_id: str
    agent_id: str
    agent_version: int | None
    from_number: str
    to_number: str
    caller: str
    callee: str
    started_at: str
    ended_at: str | None
    status: Status
    guessed: bool
    reason: str
    duration_seconds: float | None
    duration_computed: float | None
    start_hash: str
    end_hash: str
    artifacts: Json
    timeline: Json | None
    summary: Json | None
    outcome: str
    events: int
    created_at: str
    closed_at: str | None

    def standing(self) -> Standing:
        """As the machine sees it."""
        since = 0.0
        if self.closed_at is not None:
            since = milliseconds(self.closed_at, timestamp()) / 1000
        return Standing(self.status, self.guessed, self.end_hash, since)


# Rows that are inserted at once.
_SIZES = (100, 10, 1)
_INSERT = {
    size: "INSERT INTO call_events (call, place, ts, type, payload, key) VALUES "  # noqa: S608
    + ", ".join(["(?, ?, ?, ?, ?, ?)"] * size)
    + " ON CONFLICT (call, key) DO NOTHING"
    for size in _SIZES
}
COLUMNS = ", ".join(Call.__struct_fields__)
_JSON_COLUMNS = ("artifacts", "timeline", "summary")


def call_of(row: Row) -> Call:
    """A row of COLUMNS as a call."""
    fields = dict(zip(Call.__struct_fields__, row, strict=True))
    for name in _JSON_COLUMNS:
        if fields[name] is not None:
            fields[name] = _json.decode(fields[name])
    fields["status"] = Status(fields["status"])
    fields["guessed"] = bool(fields["guessed"])
    return Call(**fields)


def load(db: Reading, call_id: str) -> Call | None:
    """A call's row."""
    row = db.one(f"SELECT {COLUMNS} FROM calls WHERE call_id = ?", (call_id,))  # noqa: S608
    return None if row is None else call_of(row)


def found(db: Reading, call_id: str) -> Call:
    """A call's row. Raises Rejected `not_found`."""
    call = load(db, call_id)
    if call is None:
        raise Rejected(
            "not_found",
            f"there is no call {call_id[:80]!r}",
            {"action": "use the call_id that the start of the call was answered with"},
        )
    return call


def live(db: Reading) -> list[str]:
    """The ids of all calls in progress, the oldest first."""
    rows = db.all("SELECT call_id FROM calls WHERE status = 'in_progress' ORDER BY number")
    return [call_id for (call_id,) in rows]


# -- changes -----------------------------------------------------------------------------


def start(tx: Transaction, call_id: str, new: NewCall) -> tuple[str, bool]:
    """Keep a new call: (its id, True). The one of the same provider's id: (that, False).

    Raises Rejected as `known`.
    """
    before = known(tx, new)
    if before is not None:
        return before, False
    tx.execute(
        "INSERT INTO calls (number, call_id, provider, provider_call_id, provider_stream_id,"
        " phone_number_id, tenant_id, agent_id, agent_version, from_number, to_number, caller,"
        " callee, started_at, status, guessed, reason, start_hash, end_hash, artifacts, outcome,"
        " events, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'in_progress', 0, '', ?, '', '{}', '',"
        " 0, ?)",
        (
            tx.head + 1,  # the number of the event that tells of it: rising, and its own
            call_id,
            new.provider,
            new.provider_call_id,
            new.provider_stream_id,
            new.phone_number_id,
            new.tenant_id,
            new.agent_id,
            new.agent_version,
            new.from_number,
            new.to_number,
            new.caller,
            new.callee,
            new.started_at,
            new.body_hash,
            timestamp(),
        ),
    )
    data = {
        "provider": new.provider,
        "provider_call_id": new.provider_call_id,
        "phone_number_id": new.phone_number_id,
        "tenant_id": new.tenant_id,
        "agent_id": new.agent_id,
        "from_number": new.from_number,
        "to_number": new.to_number,
        "started_at": new.started_at,
    }
    tx.emit("call.started", subject(call_id), data)
    return call_id, True


def known(db: Reading, new: NewCall) -> str | None:
    """The id of the call that was begun with the same provider's id.

    Raises Rejected `conflict` where that was started with another body.
    """
    row = db.one(
        "SELECT call_id, start_hash FROM calls WHERE provider = ? AND provider_call_id = ?",
        (new.provider, new.provider_call_id),
    )
    if row is None:
        return None
    if row[1] != new.body_hash:
        raise Rejected(
            "conflict",
            f"provider_call_id {new.provider_call_id[:80]!r} was started with another body",
            {"action": "give each call a provider_call_id of its own"},
        )
    return str(row[0])


def append(tx: Transaction, call_id: str, batch: Batch, late: float) -> int:
    """Keep events that are not there yet, all or none; how many were new.

    Raises Rejected `not_found`, and `conflict` where the call ended too long ago.
    """
    row = tx.one(
        "SELECT number, status, closed_at, events FROM calls WHERE call_id = ?", (call_id,)
    )
    if row is None:
        found(tx, call_id)
    assert row is not None
    number, status, closed_at, count = row
    if closed_at is not None:
        since = milliseconds(closed_at, timestamp()) / 1000
        if machine.event(Standing(Status(status), seconds_since=since), late) is Verdict.LATE:
            raise Rejected(
                "conflict",
                f"the call ended more than {late:g} s ago",
                {"action": "raise calls.late if events come later than that"},
            )
    tx.execute("SAVEPOINT batch")
    added, told = _insert(tx, number, count, batch.rows), batch.told
    if added < len(batch.rows):
        # Some were there before, or twice in the batch: then only what is new, by itself.
        tx.execute("ROLLBACK TO batch")
        new = _new(tx, number, batch.rows)
        added, told = _insert(tx, number, count, new), tell(new)
    tx.execute("RELEASE batch")
    if not added:
        return 0
    tx.execute(
        "UPDATE calls SET events = ?, summary = NULL WHERE number = ?", (count + added, number)
    )
    for data in told:
        tx.emit("call.events", subject(call_id), msgspec.Raw(data))
    return added


def _new(tx: Transaction, number: int, rows: Sequence[EventRow]) -> list[EventRow]:
    """Those that are not there yet, each once."""
    known: set[str] = set()
    for at in range(0, len(rows), KEYS_AT_ONCE):
        keys = [row.key for row in rows[at : at + KEYS_AT_ONCE]]
        marks = ", ".join("?" * len(keys))
        found = tx.all(
            f"SELECT key FROM call_events WHERE call = ? AND key IN ({marks})",  # noqa: S608
            (number, *keys),
        )
        known |= {key for (key,) in found}
    new = []
    for row in rows:
        if row.key not in known:
            known.add(row.key)
            new.append(row)
    return new


def _insert(tx: Transaction, number: int, count: int, rows: Sequence[EventRow]) -> int:
    """Keep those that are not there, with places after `count`; how many they are.

    Many rows a statement: between two statements the writer may have to wait for other threads.
    """
    added = at = 0
    for size in _SIZES:
        while len(rows) - at >= size:
            values: list[object] = []
            for place, row in enumerate(rows[at : at + size], count + at + 1):
                values += (number, place, *row)
            added += tx.execute(_INSERT[size], values)
            at += size
    return added


def tell(rows: Sequence[EventRow]) -> tuple[bytes, ...]:
    """Events as the data of events of the log: in pieces, so that none becomes large."""
    pieces: list[list[bytes]] = [[]]
    size = 0
    for row in rows:
        one = b'{"ts":"%s","type":%s,"payload":%s}' % (
            row.ts.encode(), _encode(row.type), row.payload.encode(),
        )  # fmt: skip
        if pieces[-1] and (len(pieces[-1]) >= TOLD_AT_ONCE or size + len(one) > TOLD_BYTES):
            pieces.append([])
            size = 0
        pieces[-1].append(one)
        size += len(one)
    return tuple(b'{"events":[' + b",".join(piece) + b"]}" for piece in pieces if piece)


def end(tx: Transaction, message: EndCall, late: float) -> Closed:
    """A gateway says how a call ended. Raises Rejected `not_found`, `conflict`, `invalid`."""
    call = found(tx, message.call_id)
    verdict = machine.end(call.standing(), message.body_hash, late)
    if verdict is Verdict.SAME:
        return Closed(call.call_id, call.status.value)
    if verdict is not Verdict.TAKEN:
        raise Rejected(
            "conflict",
            f"the call has ended already: {call.status.value} at {call.ended_at}",
            {"action": "send the end of a call once; the same again is answered the same"},
        )
    computed = milliseconds(call.started_at, message.ended_at) / 1000
    if computed < 0:
        raise Rejected(
            "invalid",
            f"ended_at: {message.ended_at} is before the start, {call.started_at}",
            {"action": "check the clock of the voice gateway", "field": "ended_at"},
        )
    reported = message.duration_seconds
    differ = reported is not None and abs(reported - computed) > TOLERANCE
    _close(tx, call, message.status, message.ended_at, "", computed, reported, message.body_hash)
    data: Json = {
        "status": message.status.value,
        "ended_at": message.ended_at,
        "duration_seconds": reported,
        "duration_computed": computed,
        "duration_differs": differ,
    }
    tx.emit("call.ended", subject(call.call_id), data)
    return Closed(call.call_id, message.status.value)


def end_idle(tx: Transaction, call_id: str) -> bool:
    """Nobody has said anything of a call for long: it has failed."""
    call = load(tx, call_id)
    if call is None or machine.idle(call.standing()) is not Verdict.TAKEN:
        return False
    last = tx.value("SELECT max(ts) FROM call_events WHERE call = ?", (call.number,))
    ended_at = max(call.started_at, last or call.started_at)
    computed = milliseconds(call.started_at, ended_at) / 1000
    _close(tx, call, Status.FAILED, ended_at, IDLE, computed, None, "")
    data: Json = {
        "status": Status.FAILED.value,
        "ended_at": ended_at,
        "duration_seconds": None,
        "duration_computed": computed,
        "duration_differs": False,
        "reason": IDLE,
    }
    tx.emit("call.ended", subject(call_id), data)
    return True


def _close(
    tx: Transaction,
    call: Call,
    status: Status,
    ended_at: str,
    reason: str,
    computed: float,
    reported: float | None,
    end_hash: str,
) -> None:
    tx.execute(
        "UPDATE calls SET status = ?, ended_at = ?, reason = ?, guessed = ?,"
        " duration_computed = ?, duration_seconds = ?, end_hash = ?, closed_at = ?, summary = NULL"
        " WHERE number = ?",
        (
            status.value,
            ended_at,
            reason,
            int(not end_hash),
            computed,
            reported,
            end_hash,
            timestamp(),
            call.number,
        ),
    )


def add_artifacts(tx: Transaction, call_id: str, new: dict[str, dict[str, str]]) -> None:
    """Add to what is known of recordings and transcripts. Raises Rejected."""
    call = found(tx, call_id)
    kept: dict[str, dict[str, str]] = call.artifacts
    merged = {kind: {**kept.get(kind, {}), **new.get(kind, {})} for kind in {**kept, **new}}
    if merged == kept:
        return
    if any(len(entries) > MOST_ARTIFACTS for entries in merged.values()):
        raise Rejected("invalid", f"a call has at most {MOST_ARTIFACTS} artifacts of each kind")
    tx.execute(
        "UPDATE calls SET artifacts = ? WHERE number = ?",
        (_json.encode(merged, order="sorted").decode(), call.number),
    )
    # An address may have a key in it, so only which there are.
    names = {kind: sorted(entries) for kind, entries in new.items()}
    tx.emit("call.artifacts", subject(call_id), names)


def set_timeline(tx: Transaction, call_id: str, timeline: Json) -> None:
    """Keep the timeline that the gateway made. Raises Rejected `not_found`."""
    call = found(tx, call_id)
    if call.timeline == timeline:
        return
    tx.execute(
        "UPDATE calls SET timeline = ? WHERE number = ?",
        (_json.encode(timeline).decode(), call.number),
    )
    counts = {name: len(part) for name, part in timeline.items() if isinstance(part, list)}
    tx.emit("call.timeline", subject(call_id), counts)


def subject(call_id: str) -> str:
    """Of a call's events in the log."""
    return f"call/{call_id}"
