"""What is asked of the queue and of a task's worker, and what they answer."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import msgspec

from actors.egress.admission import Amount
from actors.egress.made_records import File, PartRow
from actors.egress.progress import Progress
from supervisor.mailbox import Ask, Message, Overflow

Json = dict[str, Any]


class TaskView(msgspec.Struct, kw_only=True):
    """A task as contracts/egress.md shows it, with more beside it.

    `payload.files` are names; `files` tells of each: in a list the first few only, `file_count`
    says how many there are. `away`: users that are gone just now. `waiting_for`: why it has not
    been claimed yet.
    """

    task_id: str
    state: str
    action: str
    created_at: str
    error: str
    payload: Json
    app_id: str
    cmd: str
    reason: str
    message: str
    channel: str
    worker_id: str
    retry_count: int
    processed_at: str | None
    completed_at: str | None
    files: list[File]
    file_count: int
    parts: list[PartRow]
    progress: Progress | None = None
    away: list[str] = []
    waiting_for: str = ""


class Submitted(msgspec.Struct, frozen=True):
    """A start was kept; `state` is the task's at that moment."""

    task_id: str
    state: str


class StopTaken(msgspec.Struct, frozen=True):
    """A stop was kept, or there was nothing to stop any more (`over`)."""

    task_id: str
    over: bool
    state: str


class TaskPage(msgspec.Struct, frozen=True):
    """Tasks, the newest first; `next` is where the following page begins."""

    tasks: list[TaskView]
    next: int | None


class Free(msgspec.Struct, frozen=True):
    """As Amount; None where as much as it likes may be taken."""

    cpu: float | None
    memory_mb: float | None
    disk_kb: float | None


class CapacityView(msgspec.Struct, frozen=True, kw_only=True):
    """What there is, what is set aside, and what was measured last.

    `free` has no number where there is no limit. `claims_stopped`: why nothing is claimed, if that
    is so. `disk_free_mb` in MiB.
    """

    capacity: Amount
    reserved: Amount
    free: Free
    tasks: dict[str, int]
    limits: dict[str, int]
    waiting: int
    disk_free_mb: float
    claims_stopped: str


# -- to the queue -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submit(Ask[Submitted]):
    """Start a task. `body_hash` tells a repeated request from another with the same id."""

    app_id: str
    request_id: str
    cmd: str
    payload: Json
    body_hash: str


@dataclass(frozen=True, slots=True)
class StopTask(Ask[StopTaken]):
    """End a task in order."""

    app_id: str
    task_id: str


@dataclass(frozen=True, slots=True)
class GetTask(Ask[TaskView]):
    """How a task is."""

    app_id: str
    task_id: str


@dataclass(frozen=True, slots=True)
class ListTasks(Ask[TaskPage]):
    """Tasks of an app with a number below `before`."""

    app_id: str
    before: int
    limit: int
    state: str | None
    channel: str | None


@dataclass(frozen=True, slots=True)
class SetSpotlight(Ask[None]):
    """Make another user the large one."""

    app_id: str
    task_id: str
    user: str


@dataclass(frozen=True, slots=True)
class DeleteTask(Ask[None]):
    """Delete a task that has ended, with its files."""

    app_id: str
    task_id: str


@dataclass(frozen=True, slots=True)
class UploadAgain(Ask[int]):
    """Try again what was given up of a task's uploads; how many objects."""

    app_id: str
    task_id: str


@dataclass(frozen=True, slots=True)
class GetCapacity(Ask[CapacityView]):
    """What is free and what is reserved."""


@dataclass(frozen=True, slots=True)
class Look(Message):
    """Look after leases, ages and the disk: time has passed."""


@dataclass(frozen=True, slots=True)
class Measured(Message):
    """What each task takes, and how much of the disk is free, in MiB."""

    amounts: dict[str, Amount]
    disk_free_mb: float


@dataclass(frozen=True, slots=True)
class WorkerEnded(Message):
    """A task's worker has ended; `state` is what it left the task in."""

    task_id: str
    fence: int
    state: str


QueueMessage = (
    Submit
    | StopTask
    | GetTask
    | ListTasks
    | SetSpotlight
    | DeleteTask
    | UploadAgain
    | GetCapacity
    | Look
    | Measured
    | WorkerEnded
)


# -- to a worker --------------------------------------------------------------------


class Working(msgspec.Struct, frozen=True):
    """What a worker knows of its task just now."""

    progress: Progress
    away: list[str]
    files: list[File]


@dataclass(frozen=True, slots=True)
class EndRecording(Message):
    """End in order; said again it changes nothing."""


@dataclass(frozen=True, slots=True)
class ShowLarge(Message):
    """Make another user the large one; the newest counts."""

    user: str
    overflow = Overflow.COALESCE

    def coalesce_key(self) -> Hashable:
        """One for all."""
        return "spotlight"


@dataclass(frozen=True, slots=True)
class GetWorking(Ask[Working]):
    """How far it is."""


WorkerMessage = EndRecording | ShowLarge | GetWorking
