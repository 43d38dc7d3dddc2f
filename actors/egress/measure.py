"""What tasks really take: processor time and memory of their processes, bytes they write."""

from __future__ import annotations

from collections.abc import Mapping

from actors.egress.admission import Amount
from supervisor.process import group_usage


class Meter:
    """Remembers the last look, because rates are differences."""

    def __init__(self) -> None:
        self._cpu: dict[int, float] = {}
        self._bytes: dict[str, int] = {}
        self._at = 0.0

    def measure(
        self, groups: Mapping[str, set[int]], written: Mapping[str, int], now: float
    ) -> dict[str, Amount]:
        """Of each task, since the last look; those that were not there then are left out.

        `now` in seconds of any clock. Reads /proc: not for trio's thread.
        """
        elapsed, self._at = now - self._at, now
        usage = group_usage({group for own in groups.values() for group in own})
        cpu = {group: used.cpu_seconds for group, used in usage.items()}
        found = {}
        for task_id, own in groups.items():
            here = [group for group in own if group in usage]
            if here and all(group in self._cpu for group in here) and task_id in self._bytes:
                spent = sum(max(cpu[group] - self._cpu[group], 0.0) for group in here)
                wrote = max(written[task_id] - self._bytes[task_id], 0)
                memory = sum(usage[group].memory_bytes for group in here)
                found[task_id] = Amount(spent / elapsed, memory / 2**20, wrote / 1024 / elapsed)
        self._cpu, self._bytes = cpu, dict(written)
        return found
