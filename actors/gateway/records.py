"""Gateways and their recordings in the database. All SQL of this kind is here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import sqlite_utils
from sqlite_utils import Migrations

from actors.gateway import call_records
from actors.gateway.call_records import KeptCall
from actors.gateway.machine import State
from actors.gateway.messages import GatewayView, Json, RecordingFinished
from supervisor.event import timestamp
from supervisor.transaction import Reading, Row, Transaction

migrations = Migrations("gateway")


@migrations(name="0001_gateways")
def _gateways(db: sqlite_utils.Database) -> None:
    db.execute(
        """
        CREATE TABLE gateways (
            gw_id TEXT PRIMARY KEY,
            state TEXT NOT NULL,
            main_app TEXT NOT NULL,
            room TEXT NOT NULL,
            request TEXT NOT NULL,
            start_key TEXT,
            slot INTEGER,
            node TEXT NOT NULL,
            detail TEXT NOT NULL,
            session TEXT NOT NULL,
            recorded REAL NOT NULL,
            transcript INTEGER NOT NULL,
            restarts INTEGER NOT NULL,
            changed TEXT NOT NULL
        )
        """
    )
    # Only what lives is looked for at the start, however many gateways there once were.
    db.execute("CREATE INDEX gateways_live ON gateways (state) WHERE state <> 'down'")
    db.execute("CREATE INDEX gateways_changed ON gateways (changed)")
    db.execute(
        """
        CREATE TABLE recordings (
            path TEXT PRIMARY KEY,
            gw_id TEXT NOT NULL,
            session TEXT NOT NULL,
            seconds REAL NOT NULL,
            size INTEGER NOT NULL,
            transcript TEXT NOT NULL,
            created TEXT NOT NULL
        )
        """
    )
    db.execute("CREATE INDEX recordings_gateway ON recordings (gw_id, session)")
    db.execute("CREATE INDEX recordings_created ON recordings (created)")


@migrations(name="0002_calls")
def _calls(db: sqlite_utils.Database) -> None:
    db.execute(
        """
        CREATE TABLE gateway_calls (
            gw_id TEXT NOT NULL,
            call_id TEXT NOT NULL,
            direction TEXT NOT NULL,
            peer TEXT NOT NULL,
            since TEXT NOT NULL,
            established TEXT,
            PRIMARY KEY (gw_id, call_id)
        )
        """
    )


class Record(msgspec.Struct):
    """One gateway. `session` names its recordings' folder; `recorded` is in seconds."""

    gw_id: str
    state: State
    main_app: str
    room: str
    request: Json
    start_key: str | None
    slot: int | None
    node: str
    detail: str
    session: str
    recorded: float
    transcript: int
    restarts: int
    changed: str


_COLUMNS = (
    "gw_id, state, main_app, room, request, start_key, slot, node, detail, session, recorded,"
    " transcript, restarts, changed"
)
_UPDATES = ", ".join(f"{c} = excluded.{c}" for c in _COLUMNS.split(", ")[1:])
_SAVE = (
    f"INSERT INTO gateways ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
    f" ON CONFLICT (gw_id) DO UPDATE SET {_UPDATES}"
)
_encode = msgspec.json.Encoder().encode


def save(tx: Transaction, record: Record) -> None:
    """Insert or replace a gateway's row."""
    tx.execute(
        _SAVE,
        (
            record.gw_id,
            record.state.value,
            record.main_app,
            record.room,
            _encode(record.request).decode(),
            record.start_key,
            record.slot,
            record.node,
            record.detail,
            record.session,
            record.recorded,
            record.transcript,
            record.restarts,
            record.changed,
        ),
    )


def save_and_tell(tx: Transaction, record: Record, type: str, data: Json) -> None:
    """Change a gateway's state and say so: one transaction."""
    save(tx, record)
    tx.emit(type, f"gateway/{record.gw_id}", data)


def tell_all(tx: Transaction, gw_id: str, told: Sequence[tuple[str, Json]]) -> None:
    """Events of a gateway; of its state they change its calls in progress alone."""
    for kind, data in told:
        call_records.note(tx, gw_id, kind, data)
        tx.emit(kind, f"gateway/{gw_id}", data)


def end_calls(tx: Transaction, gw_id: str, told: Sequence[tuple[str, Json]], reason: str) -> None:
    """Tell the ends that are known, and of every call that is kept and not among them."""
    tell_all(tx, gw_id, told)
    call_records.close_all(tx, gw_id, reason)


def resume(tx: Transaction, record: Record, type: str, data: Json, over: str | None) -> None:
    """What a restart makes of a gateway; its calls are over for the reason `over`, if one is."""
    if over is not None:
        call_records.close_all(tx, record.gw_id, over)
    save_and_tell(tx, record, type, data)


def _record(row: Row) -> Record:
    return Record(row[0], State(row[1]), row[2], row[3], msgspec.json.decode(row[4]), *row[5:])


def load(db: Reading, gw_id: str) -> Record | None:
    """A gateway's row."""
    row = db.one(f"SELECT {_COLUMNS} FROM gateways WHERE gw_id = ?", (gw_id,))  # noqa: S608
    return None if row is None else _record(row)


def load_all(db: Reading, gw_id: str) -> tuple[Record | None, list[KeptCall]]:
    """A gateway's row and its calls in progress."""
    return load(db, gw_id), call_records.kept(db, gw_id)


def live(db: Reading) -> list[tuple[str, int | None, str]]:
    """All that are not down: (gw_id, slot, main_app)."""
    rows = db.all("SELECT gw_id, slot, main_app FROM gateways WHERE state <> 'down'")
    return [(gw_id, slot, main_app) for gw_id, slot, main_app in rows]


def live_of(db: Reading, main_app: str) -> list[str]:
    """Gateways of a profile that are not down."""
    rows = db.all("SELECT gw_id FROM gateways WHERE state <> 'down' AND main_app = ?", (main_app,))
    return [gw_id for (gw_id,) in rows]


def page(db: Reading, after: str, limit: int, state: str | None) -> list[Record]:
    """Rows in the order of gw_id, of a state where one is given."""
    where, values = "gw_id > ?", [after]
    if state is not None:
        where += " AND state = ?"
        values.append(state)
    rows = db.all(
        f"SELECT {_COLUMNS} FROM gateways WHERE {where} ORDER BY gw_id LIMIT ?",  # noqa: S608
        (*values, limit),
    )
    return [_record(row) for row in rows]


def add_recording(
    tx: Transaction, done: RecordingFinished, record: Record, transcript: str
) -> float:
    """A recording was finished. `transcript`: `none`, or `pending`.

    Returns how many seconds the gateway's present session has recorded. Doing it again for the
    same file, after a crash, changes nothing more.
    """
    tx.execute(
        "INSERT INTO recordings (path, gw_id, session, seconds, size, transcript, created)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET"
        " seconds = excluded.seconds, size = excluded.size",
        (done.path, record.gw_id, done.session, done.seconds, done.size, transcript, timestamp()),
    )
    data = {"file": done.path, "seconds": round(done.seconds, 3), "bytes": done.size}
    tx.emit("gateway.recording_finished", f"gateway/{record.gw_id}", data)
    total = tx.value(
        "SELECT coalesce(sum(seconds), 0) FROM recordings WHERE gw_id = ? AND session = ?",
        (record.gw_id, record.session),
    )
    tx.execute("UPDATE gateways SET recorded = ? WHERE gw_id = ?", (total, record.gw_id))
    return float(total)


def set_transcript(tx: Transaction, record: Record, path: str, state: str, data: Json) -> None:
    """A recording's transcript is `done` or `failed`."""
    tx.execute("UPDATE recordings SET transcript = ? WHERE path = ?", (state, path))
    save_and_tell(tx, record, f"gateway.transcript_{state}", data)


def transcripts(db: Reading, gw_id: str, session: str) -> dict[str, tuple[float, int]]:
    """Of a session's recordings that are, or are to be, transcribed: seconds and per cent done."""
    rows = db.all(
        "SELECT path, seconds, transcript FROM recordings"
        " WHERE gw_id = ? AND session = ? AND transcript <> 'none'",
        (gw_id, session),
    )
    return {path: (seconds, 100 if state == "done" else 0) for path, seconds, state in rows}


def pending_transcripts(db: Reading, gw_id: str) -> list[tuple[str, float]]:
    """Recordings that are still to be transcribed: (path, seconds)."""
    return [
        (path, seconds)
        for path, seconds in db.all(
            "SELECT path, seconds FROM recordings"
            " WHERE gw_id = ? AND transcript = 'pending' ORDER BY created",
            (gw_id,),
        )
    ]


def with_pending_transcripts(db: Reading) -> list[str]:
    """Gateways that have any."""
    return [
        g for (g,) in db.all("SELECT DISTINCT gw_id FROM recordings WHERE transcript = 'pending'")
    ]


def forget_old(folder: Path) -> Callable[[Transaction, str, int], int]:
    """A rule that deletes gateways that are down since before a time, with what they ran from.

    `folder` holds the gateways' working folders.
    """

    def forget(tx: Transaction, before: str, limit: int) -> int:
        rows = tx.all(
            "SELECT gw_id FROM gateways WHERE state = 'down' AND changed < ?"
            " ORDER BY changed LIMIT ?",
            (before, limit),
        )
        for (gw_id,) in rows:
            shutil.rmtree(folder / gw_id, ignore_errors=True)
            tx.execute("DELETE FROM gateways WHERE gw_id = ?", (gw_id,))
            tx.execute("DELETE FROM gateway_calls WHERE gw_id = ?", (gw_id,))
        return len(rows)

    return forget


def forget_recordings(tx: Transaction, before: str, limit: int) -> int:
    """Delete up to `limit` recordings made before a time, with their files; how many."""
    rows = tx.all(
        "SELECT path FROM recordings WHERE created < ? ORDER BY created LIMIT ?", (before, limit)
    )
    for (name,) in rows:
        path = Path(name)
        path.unlink(missing_ok=True)
        path.with_suffix(".txt").unlink(missing_ok=True)
        with suppress(OSError):  # other recordings of the session are still there
            path.parent.rmdir()
        tx.execute("DELETE FROM recordings WHERE path = ?", (name,))
    return len(rows)


def clock_text(seconds: float) -> str:
    """Seconds as `HH:MM:SS`, as contracts/gateway.md shows a recording's duration."""
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def view(record: Record) -> GatewayView:
    """A gateway as its row tells; its actor knows more while it lives."""
    return GatewayView(
        gw_state="up" if record.state is State.UP else "down",
        gw_id=record.gw_id,
        recording_duration=clock_text(record.recorded),
        transcript_progress=f"{record.transcript}%",
        detail=record.detail,
        state=record.state.value,
        main_app=record.main_app,
        room=record.room,
        sip=None,
        pid=None,
        restarts=record.restarts,
        changed=record.changed,
        calls=[],
    )
