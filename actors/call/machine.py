"""The states of a call. Pure.

A call is in progress until its gateway says how it ended (`ended`, `failed`, `cancelled`), or until
nobody has said anything of it for long (`failed`, guessed). The same end again changes nothing,
another one is refused; but what the gateway says in the end is truer than what we guessed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Status(enum.Enum):
    """Of a call."""

    IN_PROGRESS = "in_progress"
    ENDED = "ended"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Is it over?"""
        return self is not Status.IN_PROGRESS


class Input(enum.Enum):
    """What happens to a call."""

    END = "end"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Standing:
    """A call as far as its end is concerned.

    `guessed`: nobody said that it was over, we ended it. `seconds_since` its end, by our clock.
    """

    status: Status
    guessed: bool = False
    end_hash: str = ""
    seconds_since: float = 0.0


class Verdict(enum.Enum):
    """What an input comes to."""

    TAKEN = "taken"
    SAME = "same"  # it was taken before
    CONFLICT = "conflict"
    LATE = "late"


def end(call: Standing, end_hash: str, late: float) -> Verdict:
    """Somebody says that it is over."""
    if not call.status.terminal:
        return Verdict.TAKEN
    if not call.guessed:
        return Verdict.SAME if call.end_hash == end_hash else Verdict.CONFLICT
    return Verdict.TAKEN if call.seconds_since <= late else Verdict.LATE


def idle(call: Standing) -> Verdict:
    """Nobody has said anything of it for long."""
    return Verdict.SAME if call.status.terminal else Verdict.TAKEN


def event(call: Standing, late: float) -> Verdict:
    """Events come."""
    if call.status.terminal and call.seconds_since > late:
        return Verdict.LATE
    return Verdict.TAKEN
