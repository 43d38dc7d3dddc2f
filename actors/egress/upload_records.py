"""What is to be uploaded, in the database: one row for each object of the bucket."""

from __future__ import annotations

from typing import NamedTuple

from actors import lease as leases
from actors.lease import Lease
from supervisor.transaction import Reading, Transaction


class Upload(NamedTuple):
    """One object: `name` below the task's files, `file` is the file it belongs to.

    `upload_id` is that of a multipart upload that was begun.
    """

    task_id: str
    name: str
    file: str
    upload_id: str
    attempts: int


def enqueue(tx: Transaction, lease: Lease, objects: list[tuple[str, str]], number: int) -> None:
    """Objects of a task that is worked on: (name, file). Raises LeaseLost.

    `number` orders them within a file: a playlist comes after all that it names.
    """
    leases.hold(tx, lease)
    tx.execute_many(
        "INSERT INTO egress_uploads"
        " (task_id, name, file, number, state, upload_id, attempts, next_try, error)"
        " VALUES (?, ?, ?, ?, 'due', '', 0, 0, '') ON CONFLICT (task_id, name) DO NOTHING",
        [(lease.id, name, file, number) for name, file in objects],
    )


def due(db: Reading, now: float, limit: int) -> list[Upload]:
    """What can be tried now; the last of a file only when all before it are done."""
    rows = db.all(
        "SELECT task_id, name, file, upload_id, attempts FROM egress_uploads u"
        " WHERE state = 'due' AND next_try <= ? AND (number = 0 OR NOT EXISTS ("
        "   SELECT 1 FROM egress_uploads o WHERE o.task_id = u.task_id AND o.file = u.file"
        "   AND o.number < u.number AND o.state <> 'done'))"
        " ORDER BY next_try LIMIT ?",
        (now, limit),
    )
    return [Upload(*row) for row in rows]


def left(db: Reading) -> tuple[float | None, int]:
    """When the next one may be tried, and how many were given up."""
    following = db.value("SELECT min(next_try) FROM egress_uploads WHERE state = 'due'")
    given_up = db.value("SELECT count(*) FROM egress_uploads WHERE state = 'failed'")
    return None if following is None else float(following), int(given_up)


def begun(tx: Transaction, upload: Upload, upload_id: str) -> None:
    """A multipart upload was begun: after a restart it goes on."""
    tx.execute(
        "UPDATE egress_uploads SET upload_id = ? WHERE task_id = ? AND name = ?",
        (upload_id, upload.task_id, upload.name),
    )


def done(tx: Transaction, upload: Upload, location: str, keep_local: bool) -> list[str]:
    """An object is there; with the last one of a file, the file is.

    Its local copy, where that is not kept, is said to be gone now: the objects to delete. Said
    before it is done: a file that is gone and said to be here would be lost to who asks for it.
    """
    tx.execute(
        "UPDATE egress_uploads SET state = 'done', upload_id = '', error = ''"
        " WHERE task_id = ? AND name = ?",
        (upload.task_id, upload.name),
    )
    if upload.name != upload.file:
        return []
    changed = tx.execute(
        "UPDATE egress_files SET state = ?, location = ? WHERE task_id = ? AND name = ?",
        ("uploaded" if keep_local else "remote", location, upload.task_id, upload.file),
    )
    if changed and not upload.file.endswith(".jpg"):
        data = {"file": upload.file, "location": location}
        tx.emit("egress.uploaded", f"egress/{upload.task_id}", data)
    return objects_of(tx, upload.task_id, upload.file) if changed and not keep_local else []


def failed(tx: Transaction, upload: Upload, error: str, next_try: float, most: int) -> None:
    """It did not work; given up after `most` attempts, until somebody wants it again."""
    attempts = upload.attempts + 1
    state = "failed" if attempts >= most else "due"
    tx.execute(
        "UPDATE egress_uploads SET state = ?, attempts = ?, next_try = ?, error = ?"
        " WHERE task_id = ? AND name = ?",
        (state, attempts, next_try, error[:500], upload.task_id, upload.name),
    )
    if state == "failed":
        data = {"file": upload.name, "error": error[:500], "attempts": attempts}
        tx.emit("egress.upload_failed", f"egress/{upload.task_id}", data)


def again(tx: Transaction, task_id: str) -> int:
    """Try again what was given up of a task; how many objects."""
    count = tx.execute(
        "UPDATE egress_uploads SET state = 'due', attempts = 0, next_try = 0"
        " WHERE task_id = ? AND state = 'failed'",
        (task_id,),
    )
    if count:
        tx.emit("egress.upload_again", f"egress/{task_id}", {"objects": count})
    return count


def elsewhere(db: Reading, after: int, limit: int) -> list[tuple[int, str, str, list[str]]]:
    """Uploaded files without a local copy, a page at a time: (row, task, name, its objects)."""
    rows = db.all(
        "SELECT rowid, task_id, name FROM egress_files WHERE state = 'remote' AND rowid > ?"
        " ORDER BY rowid LIMIT ?",
        (after, limit),
    )
    return [(row, task, name, objects_of(db, task, name)) for row, task, name in rows]


def objects_of(db: Reading, task_id: str, file: str) -> list[str]:
    """The names of a file's objects that are done."""
    rows = db.all(
        "SELECT name FROM egress_uploads WHERE task_id = ? AND file = ? AND state = 'done'",
        (task_id, file),
    )
    return [name for (name,) in rows]
