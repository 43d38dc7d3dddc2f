"""A task's folder: where its parts are written and its files stand.

    <state>/egress/<task_id>/
        files/<name>.m3u8                       what a client may fetch: all below `files`
        files/<name>.segments/0001/000000.ts    the segments of the first part
        files/<name>.mp4
        run/                                    pipes and cards, while it works

A track is one recording of a task: one of all users together, or one of each user. A part is what
one run of the encoder wrote of it.
"""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import dataclass
from pathlib import Path

from actors.egress import pattern, playlist
from actors.egress.encode import PLAYLIST
from actors.egress.playlist import Segment
from actors.egress.request import Wanted


@dataclass(frozen=True, slots=True)
class Track:
    """`name` is the expanded pattern; `users` who is on it."""

    name: str
    users: tuple[str, ...]

    @property
    def segments(self) -> str:
        """The folder of its parts, below `files`."""
        return f"{self.name}.segments"


def tracks(wanted: Wanted, users: list[str], fields: dict[str, str], created: str) -> list[Track]:
    """The tracks of a task. The time in their names is that of the task's creation."""
    moment = datetime.datetime.fromisoformat(created)

    def name(user: str) -> str:
        return pattern.expand(wanted.filename_pattern, {**fields, "user": user or "all"}, moment)

    if not wanted.apart or not users:
        return [Track(name(""), tuple(users))]
    found: list[Track] = []
    taken: set[str] = set()
    for user in users:
        base = name(user)
        if "{user}" not in wanted.filename_pattern:
            base = f"{base}-{pattern.shorten(pattern.clean(user), pattern.MAX_USER)}"
        unique, count = base, 1
        while unique in taken:
            count += 1
            unique = f"{base}-{count}"
        taken.add(unique)
        found.append(Track(unique, (user,)))
    return found


class Size:
    """Bytes of a part that grows: looks only at what has come since the last look."""

    def __init__(self, part: Path) -> None:
        self._part = part
        self._next = 0
        self._whole = 0

    def look(self) -> int:
        """How many there are now, with the segment that is being written."""
        growing = _size(self._part, self._next)
        while (following := _size(self._part, self._next + 1)) is not None:
            # The encoder writes the next one: this one is whole.
            self._whole += _size(self._part, self._next) or 0
            self._next += 1
            growing = following
        return self._whole + (growing or 0)


def _size(part: Path, number: int) -> int | None:
    try:
        return (part / f"{number:06d}.ts").stat().st_size
    except FileNotFoundError:
        return None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except FileNotFoundError:
        return []


@dataclass(frozen=True, slots=True)
class Folder:
    """A task's folder."""

    root: Path

    @property
    def files(self) -> Path:
        """What may be fetched."""
        return self.root / "files"

    @property
    def run(self) -> Path:
        """What is needed while it works."""
        return self.root / "run"

    def part(self, track: Track, number: int) -> Path:
        """Where a part of a track is written."""
        return self.files / track.segments / f"{number:04d}"

    def parts(self, track: Track, numbers: list[int]) -> list[list[Segment]]:
        """The segments of each part, in order."""
        return [playlist.read(self.part(track, n) / PLAYLIST) for n in numbers]

    def pictures(self, track: Track) -> list[Path]:
        """The snapshots of a track, in order; those of zero bytes are not there yet."""
        stem = self.files / track.name
        # Only digits after it: another track's name may begin with this one's.
        mine = re.compile(re.escape(stem.name) + r"-\d{6,}\.jpg")
        found = sorted(
            (entry.name, entry.stat().st_size)
            for entry in _entries(stem.parent)
            if mine.fullmatch(entry.name)
        )
        return [stem.parent / name for name, size in found if size]

    def recorded(self, track: Track, numbers: list[int]) -> float:
        """Seconds of a track."""
        return sum(playlist.total(part) for part in self.parts(track, numbers))
