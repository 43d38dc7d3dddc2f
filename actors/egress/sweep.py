"""What tasks have left on the disk, and nobody will ask for.

Folders of tasks that are no more: retention and `DELETE` forget the rows, and then these go. The
row of a task is kept before its folder is made, and forgotten before that is deleted: a folder
without a row is always one to delete. And what a kill between the end of a task and its tidying up
has left: parts of what is whole now, things that were needed for the work only.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import trio

from actors.egress import records
from actors.egress.page.place import remove_left
from actors.egress.tracks import Folder
from supervisor.log import logger
from supervisor.orphans import Registry
from supervisor.store import Store

AT_ONCE = 500
# Ids of tasks; whatever else is on a disk of its own (`lost+found`) stays.
_OURS = re.compile(r"[0-9a-f]{16}")
# So that reading the disk does not hold up recordings, in seconds.
PAUSE = 0.02


class Sweeper:
    """Called again and again; the first time it also looks into the folders of what has ended."""

    def __init__(self, store: Store, folder: Path, registry: Registry) -> None:
        """`folder` is that of all tasks."""
        self._store = store
        self._folder = folder
        self._registry = registry
        self._looked = False

    async def __call__(self) -> None:
        """Delete what is of no use. Raises Rejected where the rows cannot be read."""
        names = await trio.to_thread.run_sync(_folders, self._folder)
        some = [names[at : at + AT_ONCE] for at in range(0, len(names), AT_ONCE)]
        for chunk in some:
            for name in await self._store.read(records.unknown, chunk):
                logger.info("egress_folder_removed", task_id=name)
                await trio.to_thread.run_sync(shutil.rmtree, self._folder / name, True)
                await trio.sleep(PAUSE)
        if self._looked:
            return
        for chunk in some:
            for name, files in await self._store.read(records.stopped, chunk):
                await trio.to_thread.run_sync(_tidy, Folder(self._folder / name), files)
                await trio.sleep(PAUSE)
        await trio.to_thread.run_sync(remove_left, self._registry)
        self._looked = True


def _folders(folder: Path) -> list[str]:
    if not folder.exists():
        return []
    with os.scandir(folder) as found:
        return sorted(
            entry.name
            for entry in found
            if _OURS.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        )


def _tidy(folder: Folder, files: set[str]) -> None:
    """Of a task that has ended as it should, and has these files."""
    shutil.rmtree(folder.run, ignore_errors=True)
    for segments in list(folder.files.rglob("*.segments")):
        name = segments.relative_to(folder.files).as_posix().removesuffix(".segments")
        whole = any(f"{name}.{kind}" in files for kind in ("mp4", "mkv", "ts"))
        if whole and f"{name}.m3u8" not in files:
            logger.info("egress_parts_removed", path=str(segments))
            shutil.rmtree(segments, ignore_errors=True)
