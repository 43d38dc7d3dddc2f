"""Running the configured transcription command on a recording."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

import trio

from actors.gateway.render import fill
from config.model import Transcribe
from supervisor.orphans import Registry
from supervisor.process import Command, Process

# Of text; more than a day of talk.
MAX_LINES = 100_000

_PROGRESS = re.compile(r"^progress (\d{1,3})$")


def text_path(recording: Path) -> Path:
    """Where a recording's text is stored: beside it."""
    return recording.with_suffix(".txt")


async def transcribe(
    recording: Path,
    settings: Transcribe,
    registry: Registry,
    owner: str,
    on_progress: Callable[[int], None],
) -> str | None:
    """Transcribe a recording; None when the text is written, or why it could not be."""
    values = {"file": str(recording), "python": sys.executable}
    lines: deque[str] = deque(maxlen=MAX_LINES)
    errors: list[str] = []

    def on_error(line: str) -> None:
        match = _PROGRESS.match(line)
        if match is not None:
            on_progress(min(int(match[1]), 100))
        else:
            errors.append(line)
            del errors[:-3]

    argv = [fill(part, values) for part in settings.command]
    process = Process(Command(argv, owner=owner), registry, lines.append, on_error)
    try:
        with trio.move_on_after(settings.timeout) as scope:
            ended = await process.run()
    except OSError as error:
        return f"{argv[0]}: {error.strerror}"
    if scope.cancelled_caught:
        return f"no end within {settings.timeout:g} s"
    if ended.status != 0:
        return f"it {ended}: {' '.join(errors)}".rstrip(": ")
    target = text_path(recording)
    partial = target.with_suffix(".part")
    try:
        partial.write_text("\n".join(lines) + "\n", "utf-8")
        partial.replace(target)
    except OSError as error:
        return f"the text cannot be stored: {error.strerror}"
    return None
