"""Restart intensity: at most `limit` restarts in any window of `seconds`.

Pure: the caller passes the time, in seconds of any clock that does not go back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Intensity:
    """The rule: more than `limit` restarts within `seconds` is too many."""

    limit: int = 5
    seconds: float = 60.0


class RestartWindow:
    """An exact sliding window: it keeps the instant of each restart that still counts."""

    __slots__ = ("_rule", "_times")

    def __init__(self, rule: Intensity) -> None:
        self._rule = rule
        self._times: deque[float] | None = None

    def allow(self, now: float) -> bool:
        """Count a restart at `now`; False, and nothing counted, if it would be one too many."""
        if self.left(now) <= 0:
            return False
        if self._times is None:
            self._times = deque()
        self._times.append(now)
        return True

    def left(self, now: float) -> int:
        """How many restarts are still allowed at `now`."""
        if self._times is None:
            return self._rule.limit
        horizon = now - self._rule.seconds
        while self._times and self._times[0] <= horizon:
            self._times.popleft()
        return self._rule.limit - len(self._times)

    def clear(self) -> None:
        """Forget all: somebody has looked and restarts by hand."""
        self._times = None
