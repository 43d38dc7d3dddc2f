"""What may become of a task: pure. The states are those of contracts/egress.md.

    ENQUEUED ──claim──> PROCESSING ──stop──> STOPPING
       │ stop │ aged       │ done │ fail        │ done │ fail
       v      v            v      v             v      v
    STOPPED TIMEOUT     STOPPED FAILED       STOPPED FAILED

A worker that is lost puts a PROCESSING task back to ENQUEUED, up to a number of times; a task that
was being stopped stays STOPPING, and whoever claims it only has to finish it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.Enum):
    """contracts/egress.md, "Task States"."""

    ENQUEUED = "ENQUEUED"
    PROCESSING = "PROCESSING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"

    @property
    def terminal(self) -> bool:
        """Does nothing follow?"""
        return self in (State.STOPPED, State.FAILED, State.TIMEOUT)


class Input(enum.Enum):
    """What happens to a task."""

    CLAIM = "claim"  # a worker has a lease on it
    STOP = "stop"  # somebody wants it to end
    DONE = "done"  # its worker is through with it
    FAIL = "fail"  # its worker cannot do it
    AGED = "aged"  # nobody claimed it in time
    LOST = "lost"  # its worker is gone


class Illegal(ValueError):
    """An input that a state does not take."""


@dataclass(frozen=True, slots=True)
class Step:
    """The next state, why (`completed`, `user_stop`, …; empty when not terminal), and retries."""

    state: State
    reason: str
    retries: int


def step(state: State, what: Input, retries: int, limit: int, reason: str = "") -> Step:
    """What follows from an input. `limit` is how often a lost worker is replaced.

    Raises Illegal.
    """
    match state, what:
        case ((State.ENQUEUED | State.PROCESSING), Input.CLAIM):
            return Step(State.PROCESSING, "", retries)
        case State.STOPPING, Input.CLAIM | Input.STOP:
            return Step(State.STOPPING, "", retries)
        case State.ENQUEUED, Input.STOP:
            return Step(State.STOPPED, "user_stop", retries)
        case State.PROCESSING, Input.STOP:
            return Step(State.STOPPING, "", retries)
        case State.ENQUEUED, Input.AGED:
            return Step(State.TIMEOUT, "not_claimed", retries)
        case State.PROCESSING, Input.DONE:
            return Step(State.STOPPED, reason or "completed", retries)
        case State.STOPPING, Input.DONE:
            return Step(State.STOPPED, "user_stop", retries)
        case ((State.PROCESSING | State.STOPPING), Input.FAIL):
            return Step(State.FAILED, reason or "failed", retries)
        case ((State.PROCESSING | State.STOPPING), Input.LOST):
            if retries >= limit:
                return Step(State.FAILED, "retries_exhausted", retries)
            back = State.ENQUEUED if state is State.PROCESSING else State.STOPPING
            return Step(back, "", retries + 1)
        case _:
            raise Illegal(f"{what.value} while {state.value}")
