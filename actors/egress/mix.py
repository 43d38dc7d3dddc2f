"""The handle of a mixer (mixer.py): its process, what it is told, what it says."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import trio

from actors.egress.layout import Cell
from actors.egress.request import Wanted
from supervisor.log import logger
from supervisor.orphans import Registry
from supervisor.process import Command, Exit, Process

# What it gets to write its last frame and close its pipes, in seconds.
GRACE = 3.0


class Mix:
    """One mixer. Its pipes to the encoder are `video` and `audio`."""

    def __init__(
        self,
        folder: Path,
        wanted: Wanted,
        fps: int,
        cells: Sequence[Cell],
        gone_after: float,
        registry: Registry,
        owner: str,
        said: Callable[[dict[str, Any]], None],
        *,
        sound: bool = True,
    ) -> None:
        self.video = folder / "out.video"
        self.audio = folder / "out.audio" if sound else None
        self._said = said
        # Feeds attach at the same time; a pipe has one writer.
        self._telling = trio.Lock()
        self._settings = {
            "width": wanted.video.width,
            "height": wanted.video.height,
            "fps": fps,
            "rate": wanted.audio.sample_rate,
            "channels": wanted.audio.channels,
            "video": str(self.video),
            "audio": str(self.audio) if sound else None,
            "cells": [asdict(cell) for cell in cells],
            "gone_after": gone_after,
        }
        argv = [sys.executable, "-m", "actors.egress.mixer"]
        home = Path(__file__).parent.parent.parent
        # One thread is enough for sums of a few thousand numbers.
        env = {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(home)}
        self.process = Process(
            Command(argv, env=env, owner=owner, stdin=True), registry, self._line
        )

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> Exit:
        """Run it to its end. Raises OSError when it cannot be started."""
        for pipe in (self.video, self.audio):
            if pipe is not None:
                fresh_pipe(pipe)

        async with trio.open_nursery() as nursery:
            await nursery.start(self.process.run)
            await self._tell(self._settings)
            task_status.started()
            return await self.process.wait()

    def _line(self, line: str) -> None:
        if not line.startswith("{"):
            logger.warning("mixer_says", actor=self.process.command.owner, line=line)
            return
        self._said(msgspec.json.decode(line, type=dict[str, Any]))

    async def attach(
        self, user: str, pictures: Sequence[tuple[Path, int, int]], sound: Path | None
    ) -> None:
        """Take a user's picture and sound from new pipes, which exist already."""
        video = [{"path": str(p), "width": w, "height": h} for p, w, h in pictures]
        audio = str(sound) if sound is not None and self.audio is not None else None
        await self._tell({"do": "attach", "user": user, "video": video, "audio": audio})

    async def card(self, kind: str, user: str, size: tuple[int, int], path: Path) -> None:
        """What is shown of a user who is `gone`, or who has only `sound`."""
        order = {"do": "card", "kind": kind, "user": user, "path": str(path)}
        await self._tell({**order, "width": size[0], "height": size[1]})

    async def cells(self, cells: Sequence[Cell]) -> None:
        """Another layout, from the next frame on."""
        await self._tell({"do": "cells", "cells": [asdict(cell) for cell in cells]})

    async def end(self) -> None:
        """Let it write its last frame: the encoder then has the end of its input."""
        await self._tell({"do": "end"})
        with trio.move_on_after(GRACE) as late:
            await self.process.wait()
        if late.cancelled_caught:
            await self.process.kill()

    async def _tell(self, order: dict[str, Any]) -> None:
        try:
            async with self._telling:
                await self.process.send(msgspec.json.encode(order) + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # It is gone: whoever runs it hears that from `run`.
            logger.debug("mixer_not_told", actor=self.process.command.owner, order=order.get("do"))


def fresh_pipe(path: Path) -> None:
    """A named pipe with nothing left in it."""
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
