"""What a task's workers made, in the database: its parts and its files."""

from __future__ import annotations

import msgspec

from actors import lease as leases
from actors.egress.finish import Made
from actors.lease import Lease
from supervisor.event import timestamp
from supervisor.transaction import Reading, Transaction


class File(msgspec.Struct, frozen=True):
    """A file of a task. `state`: `complete`, `uploaded` or `deleted`; `location` where it is."""

    name: str
    format: str
    user: str
    bytes: int
    seconds: float
    state: str
    location: str


class PartRow(msgspec.Struct, frozen=True):
    """A part of a task, in order."""

    part: int
    started: str
    ended: str | None
    seconds: float
    reason: str


def begin_part(tx: Transaction, lease: Lease) -> int:
    """A new part of a task; its number. Raises LeaseLost."""
    leases.hold(tx, lease)
    number = int(
        tx.value("SELECT coalesce(max(part), 0) FROM egress_parts WHERE task_id = ?", (lease.id,))
    )
    tx.execute(
        "INSERT INTO egress_parts (task_id, part, fence, started, seconds, reason)"
        " VALUES (?, ?, ?, ?, 0, '')",
        (lease.id, number + 1, lease.fence, timestamp()),
    )
    tx.emit("egress.part_started", f"egress/{lease.id}", {"part": number + 1})
    return number + 1


def end_part(tx: Transaction, lease: Lease, part: int, seconds: float, reason: str) -> None:
    """A part has ended. Raises LeaseLost."""
    leases.hold(tx, lease)
    tx.execute(
        "UPDATE egress_parts SET ended = ?, seconds = ?, reason = ? WHERE task_id = ? AND part = ?",
        (timestamp(), seconds, reason, lease.id, part),
    )
    data = {"part": part, "seconds": round(seconds, 3), "reason": reason}
    tx.emit("egress.part_ended", f"egress/{lease.id}", data)


def parts(db: Reading, task_id: str) -> list[PartRow]:
    """A task's parts, in order."""
    rows = db.all(
        "SELECT part, started, ended, seconds, reason FROM egress_parts WHERE task_id = ?"
        " ORDER BY part",
        (task_id,),
    )
    return [PartRow(*row) for row in rows]


def add_files(tx: Transaction, task_id: str, made: list[Made]) -> None:
    """Files that are complete. The same again, after a crash, changes nothing more."""
    for file in made:
        known = tx.one(
            "SELECT 1 FROM egress_files WHERE task_id = ? AND name = ?", (task_id, file.name)
        )
        tx.execute(
            "INSERT INTO egress_files"
            " (task_id, name, format, user, bytes, seconds, state, location, created)"
            " VALUES (?, ?, ?, ?, ?, ?, 'complete', 'local', ?)"
            " ON CONFLICT (task_id, name) DO UPDATE SET bytes = excluded.bytes,"
            " seconds = excluded.seconds",
            (
                task_id,
                file.name,
                file.format,
                file.user,
                file.bytes,
                file.seconds,
                timestamp(),
            ),
        )
        if known is None and file.format != "jpg":
            data = {"file": file.name, "format": file.format, "bytes": file.bytes}
            data["seconds"] = round(file.seconds, 3)
            tx.emit("egress.file", f"egress/{task_id}", data)
    pictures = sum(1 for file in made if file.format == "jpg")
    if pictures:
        # One for all: there may be many thousands.
        tx.emit("egress.pictures", f"egress/{task_id}", {"count": pictures})


def files(db: Reading, task_id: str, limit: int = 10_000) -> list[File]:
    """A task's files, oldest first."""
    rows = db.all(
        "SELECT name, format, user, bytes, seconds, state, location FROM egress_files"
        " WHERE task_id = ? ORDER BY created, name LIMIT ?",
        (task_id, limit),
    )
    return [File(*row) for row in rows]


def count_files(db: Reading, task_id: str) -> int:
    """How many files a task has."""
    return int(db.value("SELECT count(*) FROM egress_files WHERE task_id = ?", (task_id,)))


def elsewhere(db: Reading, task_id: str, name: str) -> str:
    """Where a file is that was uploaded and is not here any more; empty for any other."""
    found = db.value(
        "SELECT location FROM egress_files WHERE task_id = ? AND name = ? AND state = 'remote'",
        (task_id, name),
    )
    return found or ""


def keep_files(tx: Transaction, lease: Lease, made: list[Made]) -> None:
    """Files that are there while the task is not at its end. Raises LeaseLost."""
    leases.hold(tx, lease)
    add_files(tx, lease.id, made)
