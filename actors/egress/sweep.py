"""Folders of tasks that are no more: retention and `DELETE` forget the rows, and then these go.

The row of a task is kept before its folder is made, and forgotten before that is deleted: a folder
without a row is always one to delete, also after a kill between the two.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import trio

from actors.egress import records
from supervisor.log import logger
from supervisor.store import Store

AT_ONCE = 500
# Ids of tasks; whatever else is on a disk of its own (`lost+found`) stays.
_OURS = re.compile(r"[0-9a-f]{16}")
# So that reading the disk does not hold up recordings, in seconds.
PAUSE = 0.05


async def sweep(store: Store, folder: Path) -> None:
    """Delete what is below `folder` and of no task. Raises Rejected where the rows are not read."""
    names = await trio.to_thread.run_sync(_folders, folder)
    for start in range(0, len(names), AT_ONCE):
        for name in await store.read(records.unknown, names[start : start + AT_ONCE]):
            logger.info("egress_folder_removed", task_id=name)
            await trio.to_thread.run_sync(shutil.rmtree, folder / name, True)
            await trio.sleep(PAUSE)


def _folders(folder: Path) -> list[str]:
    if not folder.exists():
        return []
    with os.scandir(folder) as found:
        return sorted(
            entry.name
            for entry in found
            if _OURS.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        )
