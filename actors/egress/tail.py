"""The sound of a gateway's call as a source: the file that is written while it talks."""

from __future__ import annotations

from pathlib import Path

import trio

from actors.gateway import recording
from actors.gateway import records as gateways
from supervisor.store import Store

# How often it is looked whether there is a call. There is no event to wait for: it is a file.
LOOK_EVERY = 0.5


class Tails:
    """Finds them below the folder of recordings."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder

    async def find(self, gw_id: str) -> tuple[Path, list[str]]:
        """The file of a gateway's newest call and ffmpeg's options for it; waits for a call."""
        while True:
            record = await self._store.read(gateways.load, gw_id)
            if record is not None and record.session:
                folder = self._folder / gw_id / record.session
                found = await trio.to_thread.run_sync(_newest, folder)
                if found is not None:
                    return found
            await trio.sleep(LOOK_EVERY)


def _newest(folder: Path) -> tuple[Path, list[str]] | None:
    for path in reversed(recording.dumps(folder)):
        form = recording.wav_format(path)
        if form is not None:
            options = ["-f", "s16le", "-ar", str(form.rate), "-ac", str(form.channels)]
            return path, [*options, "-skip_initial_bytes", str(recording.HEADER)]
    return None
