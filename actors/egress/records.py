"""Tasks, their parts and files in the database. All SQL of this kind is here.

Whoever works on a task shows its lease with every write (`actors/lease.py`); a late worker's is
refused and changes nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from actors import lease as leases
from actors.egress.finish import Made
from actors.egress.machine import Input, State, step
from actors.egress.made_records import File, add_files, count_files, files, parts
from actors.egress.request import Kind
from actors.lease import Lease
from supervisor.errors import Rejected
from supervisor.event import timestamp
from supervisor.transaction import Reading, Row, Transaction

KIND = "egress"
# Files that a list shows of each task; snapshots may be many thousands.
FEW = 20


class Task(msgspec.Struct):
    """One task. `payload` has its secrets, `shown` has not; `enqueued_at` by the lease's clock."""

    task_id: str
    number: int
    app_id: str
    request_id: str
    body_hash: str
    cmd: str
    kind: Kind
    channel: str
    state: State
    action: str
    reason: str
    message: str
    payload: dict[str, Any]
    shown: dict[str, Any]
    worker_id: str
    retry_count: int
    claims: int
    spotlight: str
    created_at: str
    enqueued_at: float
    processed_at: str | None
    completed_at: str | None


_COLUMNS = ", ".join(Task.__struct_fields__)
_encode = msgspec.json.encode


def _task(row: Row) -> Task:
    found = Task(*row)
    found.kind, found.state = Kind(row[6]), State(row[8])
    found.payload, found.shown = msgspec.json.decode(row[12]), msgspec.json.decode(row[13])
    return found


def _row(task: Task) -> tuple[Any, ...]:
    values = []
    for name in Task.__struct_fields__:
        value = getattr(task, name)
        if isinstance(value, Kind | State):
            value = value.value
        elif isinstance(value, dict):
            value = _encode(value).decode()
        values.append(value)
    return tuple(values)


_MARKS = ", ".join("?" for _ in Task.__struct_fields__)
_UPDATES = ", ".join(f"{c} = excluded.{c}" for c in Task.__struct_fields__[1:])
_SAVE = (
    f"INSERT INTO egress_tasks ({_COLUMNS}) VALUES ({_MARKS})"  # noqa: S608 - constants
    f" ON CONFLICT (task_id) DO UPDATE SET {_UPDATES}"
)


def save(tx: Transaction, task: Task) -> None:
    """Insert or replace a task's row."""
    tx.execute(_SAVE, _row(task))


# -- events: what a webhook of contracts/DECISIONS.md is made of ---------------------


def tell(tx: Transaction, task: Task) -> int:
    """Say which state a task is in now; the event's number."""
    data = {
        "task_id": task.task_id,
        "request_id": task.request_id,
        "app_id": task.app_id,
        "cmd": task.cmd,
        "action": task.action,
        "channel": task.channel,
        "state": task.state.value,
        "reason": task.reason,
        "message": task.message,
        "worker_id": task.worker_id,
        "payload": {**task.shown, "files": [f.name for f in files(tx, task.task_id)]},
        "created_at": task.created_at,
        "processed_at": task.processed_at,
        "completed_at": task.completed_at,
        "retry_count": task.retry_count,
        "timestamp": timestamp(),
    }
    return tx.emit(f"egress.{task.state.value.lower()}", f"egress/{task.task_id}", data)


def note(tx: Transaction, task_id: str, told: list[tuple[str, dict[str, Any]]]) -> None:
    """Events of a task that change nothing that is kept."""
    for kind, data in told:
        tx.emit(f"egress.{kind}", f"egress/{task_id}", data)


# -- a task's way -----------------------------------------------------------------


def submit(tx: Transaction, task: Task, since: str) -> tuple[Task, bool]:
    """Keep a new task; (it, True). The one of the same request, if there is one: (that, False).

    Raises Rejected as `same_request`.
    """
    before = same_request(tx, task, since)
    if before is not None:
        return before, False
    task.number = tx.head + 1  # the number of the event that tells of it: rising, and its own
    save(tx, task)
    tell(tx, task)
    return task, True


def same_request(db: Reading, task: Task, since: str) -> Task | None:
    """The task that was taken for this request before.

    A request is remembered while its task is open and for some time after (`since`).
    Raises Rejected `conflict` where the same request id comes with another body.
    """
    row = db.one(
        f"SELECT {_COLUMNS} FROM egress_tasks WHERE app_id = ? AND request_id = ?"  # noqa: S608
        " AND (completed_at IS NULL OR completed_at >= ?) ORDER BY number DESC LIMIT 1",
        (task.app_id, task.request_id, since),
    )
    if row is not None:
        before = _task(row)
        if before.body_hash != task.body_hash:
            raise Rejected(
                "conflict", f"request_id {task.request_id!r} was used for another start already"
            )
        return before
    return None


def claim(
    tx: Transaction, task_ids: list[str], node: str, boot: int, now: float, seconds: float
) -> list[tuple[Task, Lease]]:
    """Take the leases of tasks; those that came to be PROCESSING (or go on STOPPING) by it."""
    claimed = []
    for task_id in task_ids:
        task = load(tx, task_id)
        if task is None or task.state.terminal:
            continue
        lease = leases.take(tx, KIND, task_id, node, boot, now, seconds)
        if lease is None:
            continue
        before = task.state
        task.state = step(before, Input.CLAIM, task.retry_count, 0).state
        task.worker_id = f"{node}/{boot}/{lease.fence}"
        task.claims += 1
        if before is State.ENQUEUED:
            task.action = "start"
            task.processed_at = task.processed_at or timestamp()
        save(tx, task)
        if before is State.ENQUEUED:
            tell(tx, task)
        claimed.append((task, lease))
    return claimed


def ask_to_stop(tx: Transaction, task_id: str) -> tuple[Task, bool] | None:
    """Somebody wants it to end: the task as it is then, and whether it had ended before."""
    task = load(tx, task_id)
    if task is None or task.state.terminal:
        return None if task is None else (task, True)
    begun = task.state is State.ENQUEUED and bool(parts(tx, task_id))
    taken = step(task.state, Input.FINISH if begun else Input.STOP, task.retry_count, 0)
    if taken.state is not task.state:
        _become(tx, task, taken.state, taken.reason, "stopped before it was claimed", action="stop")
    return task, False


def time_out(tx: Transaction, task_ids: list[str], seconds: float) -> list[Task]:
    """Nobody claimed them in time."""
    ended = []
    for task_id in task_ids:
        task = load(tx, task_id)
        if task is not None and task.state is State.ENQUEUED:
            taken = step(task.state, Input.AGED, task.retry_count, 0)
            _become(tx, task, taken.state, taken.reason, f"not claimed within {seconds:g} s")
            ended.append(task)
    return ended


def lost(tx: Transaction, task_id: str, limit: int, why: str, now: float) -> Task | None:
    """Its worker is gone: back into the queue, or FAILED when that was too often."""
    leases.end(tx, KIND, task_id)
    task = load(tx, task_id)
    if task is None or task.state.terminal or task.state is State.ENQUEUED:
        return task
    taken = step(task.state, Input.LOST, task.retry_count, limit)
    if taken.state is State.FAILED and task.state is State.PROCESSING and parts(tx, task_id):
        # Nobody records it again; what there is becomes files before it has failed.
        taken = step(task.state, Input.FINISH, task.retry_count + 1, limit, taken.reason)
    task.retry_count = taken.retries
    task.enqueued_at = now
    _become(tx, task, taken.state, taken.reason, why)
    return task


def take_back(tx: Transaction, node: str, boot: int, limit: int, now: float) -> list[str]:
    """What this node's earlier boots had when they were killed is theirs no more; which it was."""
    taken = leases.take_back(tx, KIND, node, boot)
    for task_id in taken:
        lost(tx, task_id, limit, "the appliance was killed", now)
    return taken


def end(
    tx: Transaction,
    lease: Lease,
    what: Input,
    reason: str,
    message: str,
    made: list[Made],
) -> Task:
    """A worker is through: DONE or FAIL, with the files it made. Raises LeaseLost."""
    leases.hold(tx, lease)
    task = load(tx, lease.id)
    assert task is not None
    add_files(tx, task.task_id, made)
    taken = step(task.state, what, task.retry_count, 0, reason)
    _become(tx, task, taken.state, taken.reason, message)
    leases.release(tx, lease)
    return task


def healthy(tx: Transaction, lease: Lease) -> None:
    """Its worker records well: what was lost before counts no longer. Raises LeaseLost."""
    leases.hold(tx, lease)
    tx.execute("UPDATE egress_tasks SET retry_count = 0 WHERE task_id = ?", (lease.id,))


def _become(
    tx: Transaction, task: Task, state: State, reason: str, message: str, action: str = ""
) -> None:
    changed = state is not task.state
    task.state, task.reason = state, reason
    task.action = action or task.action
    task.message = message if state is not State.STOPPING else ""
    if state.terminal:
        task.completed_at = timestamp()
        # What it was started with is not needed any more, and may hold secrets.
        task.payload = {}
    save(tx, task)
    if changed:
        tell(tx, task)


# -- reading ------------------------------------------------------------------------


def load(db: Reading, task_id: str) -> Task | None:
    """A task's row."""
    row = db.one(f"SELECT {_COLUMNS} FROM egress_tasks WHERE task_id = ?", (task_id,))  # noqa: S608
    return None if row is None else _task(row)


def still_open(db: Reading) -> list[Task]:
    """All that have not ended, in the order they came."""
    rows = db.all(
        f"SELECT {_COLUMNS} FROM egress_tasks"  # noqa: S608
        " WHERE state IN ('ENQUEUED', 'PROCESSING', 'STOPPING') ORDER BY number"
    )
    return [_task(row) for row in rows]


def page(
    db: Reading, app_id: str, before: int, limit: int, state: str | None, channel: str | None
) -> list[tuple[Task, list[File], int]]:
    """Tasks with a number below `before`, the newest first, with a few files and their count."""
    where, values = "app_id = ? AND number < ?", [app_id, before]
    if state is not None:
        where, values = where + " AND state = ?", [*values, state]
    if channel is not None:
        where, values = where + " AND channel = ?", [*values, channel]
    rows = db.all(
        f"SELECT {_COLUMNS} FROM egress_tasks WHERE {where}"  # noqa: S608
        " ORDER BY number DESC LIMIT ?",
        (*values, limit),
    )
    return [
        (task, files(db, task.task_id, FEW), count_files(db, task.task_id))
        for task in map(_task, rows)
    ]


def set_spotlight(tx: Transaction, task_id: str, user: str) -> None:
    """Who is the large one, also after a restart."""
    tx.execute("UPDATE egress_tasks SET spotlight = ? WHERE task_id = ?", (user, task_id))
    tx.emit("egress.spotlight", f"egress/{task_id}", {"user": user})


def forget(tx: Transaction, task_id: str) -> None:
    """A task that has ended goes, with all that is known of it; its folder goes after it."""
    for table in ("egress_tasks", "egress_parts", "egress_files", "egress_uploads"):
        tx.execute(f"DELETE FROM {table} WHERE task_id = ?", (task_id,))  # noqa: S608
    leases.forget(tx, KIND, task_id)
    tx.emit("egress.deleted", f"egress/{task_id}", {})


def forget_old(tx: Transaction, before: str, limit: int) -> int:
    """Forget up to so many tasks that ended before a time; their folders are swept (sweep.py)."""
    rows = tx.all(
        # What is still to be uploaded is kept.
        "SELECT task_id FROM egress_tasks t WHERE completed_at < ? AND NOT EXISTS ("
        " SELECT 1 FROM egress_uploads u WHERE u.task_id = t.task_id AND u.state <> 'done')"
        " ORDER BY completed_at LIMIT ?",
        (before, limit),
    )
    for (task_id,) in rows:
        forget(tx, task_id)
    return len(rows)


def unknown(db: Reading, task_ids: list[str]) -> list[str]:
    """Those of them that are no task."""
    marks = ", ".join("?" * len(task_ids))
    rows = db.all(
        f"SELECT task_id FROM egress_tasks WHERE task_id IN ({marks})",  # noqa: S608
        tuple(task_ids),
    )
    return sorted(set(task_ids) - {task_id for (task_id,) in rows})


def stopped(db: Reading, task_ids: list[str]) -> list[tuple[str, set[str]]]:
    """Those of them that have ended as they should, with the names of their files."""
    marks = ", ".join("?" * len(task_ids))
    rows = db.all(
        f"SELECT task_id FROM egress_tasks WHERE state = 'STOPPED' AND task_id IN ({marks})",  # noqa: S608
        tuple(task_ids),
    )
    return [(task_id, {file.name for file in files(db, task_id)}) for (task_id,) in rows]
