"""What becomes of a delivery after a try, and what is known of a receiver as a whole. Pure.

    pending ──2xx──▶ delivered
       │ ▲───────── any other answer, or none: again after a while
       ├──last try──▶ dead ──redrive──▶ pending
       └──410──▶ pending, and its endpoint is disabled

After standard-webhooks.md, "Delivery success and failure": whatever is no 2xx is a failure, a
redirect and all of 4xx among it, and is tried again. A receiver that is being deployed answers 404,
and one whose key is being changed 401.
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass

from supervisor.backoff import Backoff

# The spec wants some; the contract's times (15 s, doubling to 300 s) are what it is around.
JITTER = 0.1
# Of these the spec says to throttle: the receiver as a whole has too much, or is not there.
_AWAY = (429, 502, 503, 504)


class State(enum.Enum):
    """Of a delivery, as its row has it."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a try ended.

    `status` is None where no answer came, and `error` then says why. `retry_after` and `seconds`
    are in seconds; `answer` is the beginning of the answer's body.
    """

    status: int | None
    error: str = ""
    retry_after: float | None = None
    seconds: float = 0.0
    answer: str = ""

    @property
    def accepted(self) -> bool:
        """Did the receiver take it?"""
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Does the receiver want nothing more?"""
        return self.status == 410

    @property
    def away(self) -> bool:
        """Is it about the receiver, rather than about what was sent?"""
        return self.status is None or self.status in _AWAY

    @property
    def reason(self) -> str:
        """Why it is no success, in words without anything of the body."""
        if self.status is None:
            return self.error
        return "" if self.accepted else f"answered {self.status}"


@dataclass(frozen=True, slots=True)
class Rule:
    """How often, and how long to wait in between; in seconds."""

    attempts: int
    first: float
    cap: float

    def delay(self, failures: int, rng: random.Random) -> float:
        """After so many failures: doubling from `first` to `cap`."""
        return Backoff(self.first, 2.0, self.cap, JITTER).delay(failures, rng)


@dataclass(frozen=True, slots=True)
class Next:
    """The state after a try; `wait` in seconds until the next; `disable`: the whole endpoint."""

    state: State
    attempts: int
    wait: float = 0.0
    disable: bool = False


def step(attempts: int, outcome: Outcome, rule: Rule, rng: random.Random) -> Next:
    """What becomes of a pending delivery that had so many tries before this one."""
    attempts += 1
    if outcome.accepted:
        return Next(State.DELIVERED, attempts)
    if outcome.gone:
        # Not its fault: it is the first to go when the endpoint is enabled again.
        return Next(State.PENDING, attempts, disable=True)
    if attempts >= rule.attempts:
        return Next(State.DEAD, attempts)
    wait = rule.delay(attempts, rng)
    if outcome.retry_after is not None:
        wait = min(max(wait, outcome.retry_after), rule.cap)
    return Next(State.PENDING, attempts, wait)


@dataclass(frozen=True, slots=True)
class Receiver:
    """What is known of a receiver from the answers of late.

    One that is down would use up the tries of all that waits for it. So once two subjects in a row
    found nobody there, what was never tried is held, and then goes one at a time, after waits that
    double; what was tried already keeps its own times. One subject alone holds nobody: it may be
    what is sent that a receiver chokes on.
    """

    failures: int = 0
    subject: str = ""
    away: bool = False
    # By the clock that `now` is of.
    held_until: float = 0.0


WELL = Receiver()


def observe(
    known: Receiver, subject: str, outcome: Outcome, rule: Rule, now: float, rng: random.Random
) -> Receiver:
    """What is known after one more answer, or none."""
    if not outcome.away:
        return WELL
    failures = known.failures + 1
    first = known.subject or subject
    away = known.away or first != subject or outcome.status == 429
    if not away:
        return Receiver(failures, first)
    wait = rule.delay(failures if outcome.status == 429 else max(failures - 1, 1), rng)
    if outcome.retry_after is not None:
        wait = min(max(wait, outcome.retry_after), rule.cap)
    return Receiver(failures, first, away=True, held_until=max(known.held_until, now + wait))
