"""What fits: pure. Each task has a reserve of the machine; what is claimed must fit what is free.

A reserve is what the configuration expects of a task's kind until the task has been measured, and
then the most that was measured lately. A task that runs is never ended for one that waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

# After so many measurements a task's reserve is what it takes, not what was expected.
SETTLED = 3
# A measured peak fades by this factor with each measurement after it.
FADE = 0.9


class Amount(msgspec.Struct, frozen=True):
    """Cores, MiB of memory, KiB a second to the disk."""

    cpu: float = 0.0
    memory_mb: float = 0.0
    disk_kb: float = 0.0

    def plus(self, other: Amount) -> Amount:
        """Both together."""
        return Amount(
            self.cpu + other.cpu, self.memory_mb + other.memory_mb, self.disk_kb + other.disk_kb
        )

    def fits(self, capacity: Amount) -> str:
        """Which of the three does not; empty when all do. A capacity of 0 is without limit."""
        for name in ("cpu", "memory_mb", "disk_kb"):
            most = getattr(capacity, name)
            if most and getattr(self, name) > most + 1e-9:
                return name
        return ""


@dataclass(slots=True)
class Reserve:
    """Of one task."""

    expected: Amount
    measured: Amount = field(default_factory=Amount)
    measurements: int = 0

    @property
    def amount(self) -> Amount:
        """What is set aside for it now."""
        return self.measured if self.measurements >= SETTLED else self.expected

    def correct(self, now: Amount) -> None:
        """It was measured."""
        old = self.measured
        self.measured = Amount(
            max(now.cpu, old.cpu * FADE),
            max(now.memory_mb, old.memory_mb * FADE),
            max(now.disk_kb, old.disk_kb * FADE),
        )
        self.measurements += 1


@dataclass(slots=True)
class Ledger:
    """All reserves. `limits` is how many tasks there may be of each kind, and in all (`tasks`)."""

    capacity: Amount
    limits: dict[str, int]
    reserves: dict[str, Reserve] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    @property
    def reserved(self) -> Amount:
        """Of all tasks that run."""
        total = Amount()
        for reserve in self.reserves.values():
            total = total.plus(reserve.amount)
        return total

    def refuse(self, kind: str, cost: Amount) -> str:
        """Why a task cannot be claimed now; empty when it can.

        Where nothing runs, one that is expected to take more than there is may try.
        """
        if len(self.reserves) >= self.limits.get("tasks", 0):
            return "tasks"
        if sum(1 for k in self.kinds.values() if k == kind) >= self.limits.get(kind, 0):
            return kind
        if not self.reserves:
            return ""
        return self.reserved.plus(cost).fits(self.capacity)

    def add(self, task_id: str, kind: str, cost: Amount) -> None:
        """It was claimed."""
        self.reserves[task_id] = Reserve(cost)
        self.kinds[task_id] = kind

    def remove(self, task_id: str) -> None:
        """It is over."""
        self.reserves.pop(task_id, None)
        self.kinds.pop(task_id, None)
