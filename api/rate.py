"""Request rates for each address: a token bucket. Bounded, however many addresses there are."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MAX_ADDRESSES = 10_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """May it pass; and the figures for the `X-RateLimit-*` headers (`reset` in seconds)."""

    allowed: bool
    limit: int
    remaining: int
    reset: float

    def headers(self) -> list[tuple[bytes, bytes]]:
        """X-RateLimit-Limit, -Remaining and -Reset, and Retry-After when refused."""
        found = [
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % self.remaining),
            (b"x-ratelimit-reset", b"%d" % int(self.reset + 0.999)),
        ]
        if not self.allowed:
            found.append((b"retry-after", b"%d" % max(int(self.reset + 0.999), 1)))
        return found


class Rates:
    """`per_minute` requests a minute for each address, as bursts or evenly; 0 is no limit."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str, now: float) -> Verdict | None:
        """Count one request; None when there is no limit."""
        limit = self.per_minute
        if limit <= 0:
            return None
        level, since = self._buckets.pop(address, (float(limit), now))
        rate = limit / 60.0
        level = min(limit, level + (now - since) * rate)
        allowed = level >= 1.0
        if allowed:
            level -= 1.0
        self._buckets[address] = (level, now)
        while len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        reset = (1.0 - level) / rate if not allowed else (limit - level) / rate
        return Verdict(allowed, limit, int(level), reset)
