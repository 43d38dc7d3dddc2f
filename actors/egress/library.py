"""The files of tasks, as they are fetched: what may be, and where it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import trio

from actors.egress import made_records, playlist, records
from actors.egress.made_records import PartRow
from actors.egress.records import Task
from actors.egress.tracks import Folder, Track
from supervisor.errors import Rejected
from supervisor.store import Store
from supervisor.transaction import Reading

# Longer than any that we make: what a file system refuses is no file of ours.
MAX_NAME = 1000
TYPES = {
    ".m3u8": "application/vnd.apple.mpegurl",
    ".ts": "video/mp2t",
    ".mp4": "video/mp4",
    ".mkv": "video/x-matroska",
    ".jpg": "image/jpeg",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A file on the disk, or a text that is made for the asker (`text`, where `path` is None)."""

    path: Path | None
    text: bytes
    content_type: str


class Library:
    """Finds files of tasks below a state folder."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder

    async def find(self, app_id: str, task_id: str, name: str) -> Found:
        """A file of a task; of a recording under way its playlist as it is now.

        Raises Rejected `not_found`, also for a name that is none of ours.
        """
        task, parts, elsewhere = await self._store.read(_what_is_known, task_id, name)
        kind = TYPES.get(PurePosixPath(name).suffix)
        if task is None or task.app_id != app_id or kind is None or not _usable(name):
            raise Rejected("not_found", "there is no such file")
        if elsewhere:
            raise Rejected("not_found", f"it was uploaded and is not kept here: {elsewhere}")
        folder = Folder((self._folder / "egress" / task_id).absolute())
        return await trio.to_thread.run_sync(_look, folder, task, parts, name, kind)


def _what_is_known(db: Reading, task_id: str, name: str) -> tuple[Task | None, list[PartRow], str]:
    """The task, its parts, and where a file is that is not here any more."""
    elsewhere = made_records.elsewhere(db, task_id, name)
    return records.load(db, task_id), made_records.parts(db, task_id), elsewhere


def _usable(name: str) -> bool:
    """Our own names have neither dots alone nor control characters; links are looked at later."""
    parts = name.split("/")
    short = len(name) <= MAX_NAME and all(
        len(part.encode("utf-8", "replace")) <= 255 for part in parts
    )
    return short and name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts)


def _look(folder: Folder, task: Task, parts: list[PartRow], name: str, kind: str) -> Found:
    path = folder.files / name
    if name.endswith(".m3u8") and not task.state.terminal:
        track = Track(name.removesuffix(".m3u8"), ())
        segments = folder.parts(track, [p.part for p in parts])
        if any(segments):
            text = playlist.join(segments, path.parent, ended=False)
            return Found(None, text.encode(), kind)
    if path.is_file() and path.resolve().is_relative_to(folder.files.resolve()):
        return Found(path, b"", kind)
    raise Rejected("not_found", "there is no such file, or not yet")
