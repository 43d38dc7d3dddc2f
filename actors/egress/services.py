"""What the queue and all workers share, given to each at its start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from actors.egress.feed import Tail
from actors.egress.messages import QueueMessage
from actors.egress.tracks import Folder
from actors.egress.uploader import Poke
from actors.lease import Clock
from config.model import Egress
from supervisor.orphans import Registry
from supervisor.ref import Ref
from supervisor.store import Store


@dataclass(slots=True)
class Board:
    """What an operator should look at; the queue and the uploader write it."""

    claims_stopped: str = ""
    uploads_given_up: int = 0

    def gave_up(self, count: int) -> None:
        """So many uploads are given up now."""
        self.uploads_given_up = count

    def problems(self) -> list[str]:
        """In words, for /healthz."""
        found = []
        if self.claims_stopped:
            found.append(f"no recording is begun: {self.claims_stopped}")
        if self.uploads_given_up:
            found.append(
                f"{self.uploads_given_up} uploads were given up: see egress.upload_failed, and try"
                " them again with POST …/tasks/<task_id>/upload"
            )
        return found


@dataclass(slots=True)
class Services:
    """`settings` gives the configuration in force now; `node` and `boot` name this run of it.

    `remembered` is how long a request's id stands for its task, in hours.
    """

    store: Store
    registry: Registry
    settings: Callable[[], Egress]
    remembered: Callable[[], float]
    folder: Path
    node: str
    boot: int
    clock: Clock
    tail: Tail
    queue: Ref[QueueMessage]
    uploads: Poke
    board: Board = field(default_factory=Board)

    def task_folder(self, task_id: str) -> Folder:
        """Where a task's files are."""
        return Folder((self.folder / "egress" / task_id).absolute())
