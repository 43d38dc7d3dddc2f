"""A task as its clients see it."""

from __future__ import annotations

from actors.egress.machine import State
from actors.egress.made_records import File, PartRow
from actors.egress.messages import TaskView, Working
from actors.egress.records import Task


def view(
    task: Task,
    files: list[File],
    count: int,
    parts: list[PartRow],
    working: Working | None,
    waiting_for: str,
) -> TaskView:
    """From its row, and from its worker where it has one; `count` of files, of which some came."""
    found = list(files)
    if working is not None:
        known = {file.name for file in files}
        found += [file for file in working.files if file.name not in known]
    failed = task.state in (State.FAILED, State.TIMEOUT)
    return TaskView(
        task_id=task.task_id,
        state=task.state.value,
        action=task.action,
        created_at=task.created_at,
        error=(task.message or task.reason) if failed else "",
        payload={**task.shown, "files": [file.name for file in found]},
        app_id=task.app_id,
        cmd=task.cmd,
        reason=task.reason,
        message=task.message,
        channel=task.channel,
        worker_id=task.worker_id,
        retry_count=task.retry_count,
        processed_at=task.processed_at,
        completed_at=task.completed_at,
        files=found,
        file_count=count + len(found) - len(files),
        parts=parts,
        progress=working.progress if working is not None else None,
        away=working.away if working is not None else [],
        waiting_for=waiting_for,
    )
