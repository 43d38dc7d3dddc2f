"""What may become of a task: pure. The states are those of contracts/egress.md.

    ENQUEUED ──claim──> PROCESSING ──stop──> STOPPING
       │ stop │ aged       │ done │ fail        │ done │ fail
       v      v            v      v             v      v
    STOPPED TIMEOUT     STOPPED FAILED       STOPPED FAILED

What was put back after it had recorded something is not stopped at once, but finished first:
STOPPING, until somebody has claimed it and made its files.

A worker that is lost puts a PROCESSING task back to ENQUEUED, up to a number of times; a task that
was being stopped stays STOPPING, and whoever claims it only has to finish it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

# The reason of a task whose workers were lost too often.
LOST = "retries_exhausted"


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
    FINISH = "finish"  # it is to end, and what was recorded of it is to become files
    DONE = "done"  # its worker is through with it
    FAIL = "fail"  # its worker cannot do it
    AGED = "aged"  # nobody claimed it in time
    LOST = "lost"  # its worker is gone


# How often more a worker is replaced that only makes files of what was recorded.
FINISHINGS = 3


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
        case ((State.ENQUEUED | State.PROCESSING), Input.FINISH):
            return Step(State.STOPPING, reason, retries)
        case State.STOPPING, Input.CLAIM | Input.STOP | Input.FINISH:
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
            if retries >= limit + (FINISHINGS if state is State.STOPPING else 0):
                return Step(State.FAILED, LOST, retries)
            back = State.ENQUEUED if state is State.PROCESSING else State.STOPPING
            return Step(back, "", retries + 1)
        case _:
            raise Illegal(f"{what.value} while {state.value}")
