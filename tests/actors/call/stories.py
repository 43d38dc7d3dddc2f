"""Events of calls, told shortly: a call begins at ten, and times are milliseconds from there."""

from __future__ import annotations

import datetime
from typing import Any

from actors.call.stamp import shown
from actors.call.story import Heard, Story, read

BEGIN = datetime.datetime(2025, 12, 31, 10, tzinfo=datetime.UTC)


def at(milliseconds: float) -> str:
    """A moment of the call."""
    return shown(BEGIN + datetime.timedelta(milliseconds=milliseconds))


def heard(when: float, type: str, **payload: Any) -> Heard:
    """Any event."""
    return Heard(at(when), type, payload)


def says(when: float, tag: str, text: str = "hello", **more: Any) -> Heard:
    """Somebody says something."""
    return heard(when, "transcript", tag=tag, text=text, **more)


def story(*events: Heard, ended: float | None = None) -> Story:
    """All of it, read."""
    return read(at(0), None if ended is None else at(ended), events)
