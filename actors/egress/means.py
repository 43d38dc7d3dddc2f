"""What a part is made of and with, and how it ends: data only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from actors.egress import encode
from actors.egress.feed import Tail
from actors.egress.request import Kind, Wanted
from actors.egress.sources import Origin
from actors.egress.tracks import Folder, Track
from supervisor.orphans import Registry


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says; times in seconds."""

    gone_after: float
    stalled_after: float
    idle_timeout: float


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be recorded, as it was asked for, with its sources."""

    task_id: str
    kind: Kind
    wanted: Wanted
    origins: tuple[Origin, ...]
    tracks: tuple[Track, ...]
    folder: Folder
    rules: Rules

    @property
    def fps(self) -> int:
        """Of the mixer; snapshots are chosen from its frames."""
        if self.kind is Kind.SNAPSHOT or self.wanted.interval_in_ms is not None:
            return encode.SNAPSHOT_RATE
        return self.wanted.video.frame_rate

    @property
    def snapshots(self) -> bool:
        """Single pictures instead of a recording?"""
        return self.wanted.interval_in_ms is not None


@dataclass(frozen=True, slots=True)
class End:
    """Why a part ended. `how`: `asked`, `over`, `failed`, `broken` or `disk_full`."""

    how: str
    reason: str = ""


@dataclass(slots=True)
class Means:
    """What a part is made with. `report(kind, data)` is for events, `stop` ends it in order."""

    registry: Registry
    owner: str
    allowed: Callable[[str], bool]
    reaches: Callable[[str, str], bool]
    # Told the process groups of a page when it is there, and again when it is gone.
    noted: Callable[[Sequence[int], bool], None]
    tail: Tail
    report: Callable[[str, dict[str, object]], None]
    stop: trio.Event = field(default_factory=trio.Event)
