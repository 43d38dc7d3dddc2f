"""Waiting times between attempts: exponential, with jitter and a cap. Pure."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """`first · factor^n` seconds, at most `cap`, each spread by ±`jitter` (a share of it).

    A child that ran for `healthy_after` seconds starts over at `first`.
    """

    first: float = 0.1
    factor: float = 2.0
    cap: float = 30.0
    jitter: float = 0.2
    healthy_after: float = 60.0

    def delay(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after the `failures`-th failure in a row (the first is 1).

        The jitter is applied below the cap as well as at it, and never above it, so
        that many children that fail together do not come back together.
        """
        if failures < 1 or self.first <= 0:
            return 0.0
        # The exponent is bounded so that a child failing for years cannot overflow a float.
        steps = math.log(max(self.cap / self.first, 1.0), self.factor) if self.factor > 1 else 0.0
        base = min(self.first * self.factor ** min(failures - 1, steps + 1), self.cap)
        spread = base * self.jitter
        # Cut off at the cap before drawing: cut off after, half of all would wait exactly the cap.
        return float(base + rng.uniform(-spread, min(spread, self.cap - base)))

    def failures_after(self, failures: int, ran_for: float) -> int:
        """Failures in a row, counting one more that came `ran_for` seconds after ready."""
        return 1 if ran_for >= self.healthy_after else failures + 1
