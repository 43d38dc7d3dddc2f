"""What is to be done for a task, and what is made of what was done: no waiting here."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from actors.egress import playlist, records
from actors.egress import upload_records as rows
from actors.egress.allow import check_page, check_rtmp
from actors.egress.finish import Made
from actors.egress.machine import LOST, Input, State
from actors.egress.means import End, Job, Rules
from actors.egress.messages import Submit
from actors.egress.records import Task
from actors.egress.request import Kind, Wanted, shown, understand
from actors.egress.services import Services
from actors.egress.sources import Origin, fields, origins
from actors.egress.tracks import Folder, Track, tracks
from actors.lease import Lease
from config.model import Egress
from supervisor.event import timestamp
from supervisor.transaction import Transaction


def job_of(task: Task, services: Services, folder: Folder) -> Job:
    """What is to be recorded, by the configuration in force now.

    Raises Rejected where what was possible at the start is not any more.
    """
    settings = services.settings()
    kind, wanted = understand(task.cmd, task.payload)
    filled = fields(task.app_id, task.task_id, wanted, task.payload)
    found = allowed(kind, wanted, filled, settings)
    limit = min(wanted.max_duration or settings.max_duration, settings.max_duration)
    names = {"task_id": task.task_id, "channel": task.channel, "region": settings.region}
    return Job(
        task.task_id,
        kind,
        msgspec.structs.replace(wanted, max_duration=limit),
        tuple(found),
        tuple(tracks(wanted, [o.user for o in found], names, task.created_at)),
        folder,
        Rules(settings.gone_after, settings.stalled_after, settings.idle_timeout),
    )


def new_task(message: Submit, task_id: str, kind: Kind, wanted: Wanted, now: float) -> Task:
    """The row of a task that was just asked for; `now` by the leases' clock."""
    return Task(
        task_id=task_id,
        number=0,
        app_id=message.app_id,
        request_id=message.request_id,
        body_hash=message.body_hash,
        cmd=message.cmd,
        kind=kind,
        channel=wanted.channel if kind is not Kind.PAGE else "",
        state=State.ENQUEUED,
        action="start",
        reason="",
        message="",
        payload=message.payload,
        shown=shown(message.payload),
        worker_id="",
        retry_count=0,
        claims=0,
        spotlight=wanted.spotlight,
        created_at=timestamp(),
        enqueued_at=now,
        processed_at=None,
        completed_at=None,
    )


def allowed(kind: Kind, wanted: Wanted, filled: dict[str, str], settings: Egress) -> list[Origin]:
    """The sources of a task, where all that it wants is allowed and configured. Raises Rejected."""
    if wanted.rtmp_dst:
        check_rtmp(wanted.rtmp_dst, settings.rtmp_hosts)
    if kind is Kind.PAGE:
        check_page(wanted.page, settings)
        return []
    return origins(settings.channels, wanted, filled)


def tracks_on_disk(folder: Folder) -> list[Track]:
    """The tracks that were begun, of a task whose request cannot be carried out any more."""
    found = sorted(folder.files.glob("**/*.segments"))
    names = {path.relative_to(folder.files).as_posix() for path in found}
    pictures = {path.relative_to(folder.files).as_posix() for path in folder.files.rglob("*.jpg")}
    stems = {name.removesuffix(".segments") for name in names}
    stems |= {name.rpartition("-")[0] for name in pictures}
    return [Track(name, ()) for name in sorted(stems)]


# What comes first of (object, the file it belongs to), and what after it.
Objects = tuple[list[tuple[str, str]], list[tuple[str, str]]]


def objects_of(folder: Folder, made: list[Made]) -> Objects:
    """What a task's files are made of: a playlist comes after the segments that it names."""
    first: list[tuple[str, str]] = []
    after: list[tuple[str, str]] = []
    for file in made:
        if file.format != "hls":
            first.append((file.name, file.name))
            continue
        index = folder.files / file.name
        names = (s.path.relative_to(folder.files).as_posix() for s in playlist.read(index))
        first += [(name, file.name) for name in names]
        after.append((file.name, file.name))
    return first, after


def longest(folder: Folder, found: Sequence[Track], number: int) -> float:
    """Seconds of a part: of its longest track."""
    return max((folder.recorded(track, [number]) for track in found), default=0.0)


def verdict(end: End) -> tuple[Input, str, str]:
    """What an end means for the task: (input, reason, message)."""
    match end.how:
        case "asked":
            return Input.DONE, "user_stop", "stopped as asked"
        case "over":
            return Input.DONE, end.reason, f"ended: {end.reason.replace('_', ' ')}"
        case "disk_full":
            return Input.FAIL, "disk_full", "the disk is full"
        case "broken" if end.reason == LOST:
            return Input.FAIL, LOST, "its workers were lost too often"
        case _:
            return Input.FAIL, "recorder_failed", end.reason


def pictures(folder: Folder, track: Track) -> list[Made]:
    """The snapshots of all parts, in order."""
    user = track.users[0] if len(track.users) == 1 else ""
    return [
        Made(path.relative_to(folder.files).as_posix(), "jpg", user, path.stat().st_size, 0.0)
        for path in folder.pictures(track)
    ]


def end_with_uploads(
    tx: Transaction,
    lease: Lease,
    what: Input,
    reason: str,
    message: str,
    made: list[Made],
    objects: Objects,
) -> Task:
    """A worker is through, and what it made is to go to the bucket. Raises LeaseLost."""
    for number, wanted in enumerate(objects):
        rows.enqueue(tx, lease, wanted, number)
    return records.end(tx, lease, what, reason, message, made)
