"""Recordings and transcripts of this appliance that belong to a call; found when asked for.

A gateway's recording belongs to a call whose `provider_stream_id` or `provider_call_id` is that
gateway's `gw_id`, when it began while the call went on. An egress task belongs to a call when its
channel is the call's id or one of the provider's ids, and it was at work while the call went on.
"""

from __future__ import annotations

import datetime
import re
from contextlib import suppress
from pathlib import Path

import msgspec

from actors.call.records import Call
from actors.egress import records as egress_records
from actors.egress.machine import State
from supervisor.transaction import Reading, Transaction

# Clocks of two programs on one machine, and seconds that names are cut to.
SLACK = datetime.timedelta(seconds=5)
_NAMED = re.compile(r"call-(\d{4})-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)(?:-\d+)?")
MOST = 1000


class Linked(msgspec.Struct, frozen=True):
    """A file. `source`: `gateway` or `egress`; `of`: its gateway or task.

    `href` where the appliance gives it, if it does; else `location`: a path on this machine, or
    where it was uploaded to.
    """

    source: str
    of: str
    name: str
    kind: str
    seconds: float
    bytes: int
    href: str = ""
    location: str = ""


def files_of(db: Reading, call: Call) -> list[Linked]:
    """All that belongs to a call, oldest first."""
    found = []
    for path, gw_id, seconds, size, transcript in _recordings(db, call):
        name = Path(path).name
        found.append(Linked("gateway", gw_id, name, "recording", seconds, size, location=path))
        if transcript == "done":
            text = Path(path).with_suffix(".txt")
            found.append(
                Linked("gateway", gw_id, text.name, "transcript", 0, 0, location=str(text))
            )
    for task_id, app_id, _state in _tasks(db, call):
        rows = db.all(
            "SELECT name, format, seconds, bytes, state, location FROM egress_files"
            " WHERE task_id = ? ORDER BY created, name LIMIT ?",
            (task_id, MOST),
        )
        for name, format_, seconds, size, state, location in rows:
            kind = "picture" if format_ == "jpg" else "recording"
            href = f"/egress/v1/{app_id}/tasks/{task_id}/files/{name}" if state != "remote" else ""
            elsewhere = location if location != "local" else ""
            found.append(Linked("egress", task_id, name, kind, seconds, size, href, elsewhere))
    return found


def forget_files(tx: Transaction, call: Call) -> int:
    """Delete what belongs to a call, with its files; how many recordings and tasks that were.

    A task's folder is swept after its row; one that still works is left alone.
    """
    count = 0
    for name, _gw_id, _seconds, _size, _transcript in _recordings(tx, call):
        path = Path(name)
        # The file first: a row without a file is harmless, and a file without a row is found by
        # nobody.
        path.unlink(missing_ok=True)
        path.with_suffix(".txt").unlink(missing_ok=True)
        with suppress(OSError):  # other recordings of the session are still there
            path.parent.rmdir()
        tx.execute("DELETE FROM recordings WHERE path = ?", (name,))
        count += 1
    for task_id, _app_id, state in _tasks(tx, call):
        if State(state).terminal:
            egress_records.forget(tx, task_id)
            count += 1
    return count


def working(db: Reading, call: Call) -> str:
    """A task of a call that has not ended, if there is one."""
    return next((task_id for task_id, _, s in _tasks(db, call) if not State(s).terminal), "")


def _ids(call: Call) -> tuple[str, str]:
    return call.provider_stream_id or call.call_id, call.provider_call_id


def _recordings(db: Reading, call: Call) -> list[tuple[str, str, float, int, str]]:
    parse = datetime.datetime.fromisoformat
    begun = parse(call.started_at) - SLACK
    over = None if call.ended_at is None else parse(call.ended_at) + SLACK
    rows = db.all(
        "SELECT path, gw_id, seconds, size, transcript, created FROM recordings"
        " WHERE gw_id IN (?, ?) AND created >= ? ORDER BY created LIMIT ?",
        (*_ids(call), call.started_at, MOST),
    )
    found = []
    for path, gw_id, seconds, size, transcript, created in rows:
        began = _began(Path(path).stem) or parse(created) - datetime.timedelta(seconds=seconds)
        if began >= begun and (over is None or began <= over):
            found.append((path, gw_id, seconds, size, transcript))
    return found


def _began(stem: str) -> datetime.datetime | None:
    """When a recording began, as its name says: `call-2026-01-31-23-59-59-1`, in local time."""
    found = _NAMED.fullmatch(stem)
    if found is None:
        return None
    try:
        return datetime.datetime(*map(int, found.groups())).astimezone()  # type: ignore[arg-type]
    except ValueError:
        return None


def _tasks(db: Reading, call: Call) -> list[tuple[str, str, str]]:
    rows = db.all(
        # Of the channel, and at work while the call went on.
        "SELECT task_id, app_id, state FROM egress_tasks WHERE channel IN (?, ?, ?)"
        " AND channel <> '' AND (completed_at IS NULL OR completed_at >= ?)"
        " AND (? IS NULL OR created_at <= ?) ORDER BY number LIMIT ?",
        (*_ids(call), call.call_id, call.started_at, call.ended_at, call.ended_at, MOST),
    )
    return [(task_id, app_id, state) for task_id, app_id, state in rows]
