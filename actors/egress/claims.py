"""Which tasks can be claimed now: their order, what is free, and what stands in their way."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from actors.egress.admission import Amount, Ledger
from actors.egress.machine import State
from actors.egress.messages import CapacityView, Free
from actors.egress.records import Task
from actors.egress.request import Kind
from actors.lease import Lease
from config.model import Egress
from supervisor.child import Child
from supervisor.tree import Supervisor


@dataclass(slots=True)
class Open:
    """A task that has not ended. `lease` and `child` while a worker has it."""

    task: Task
    since: float
    lease: Lease | None = None
    child: Child | None = None
    waiting_for: str = ""


class Claims:
    """Chooses among the queue's open tasks; `members` has the workers."""

    def __init__(
        self, settings: Callable[[], Egress], tasks: dict[str, Open], members: Supervisor
    ) -> None:
        self._settings = settings
        self._open = tasks
        self._members = members
        self.ledger = Ledger(Amount(), {})

    def reserve(self, task: Task) -> None:
        """Set aside what a task takes."""
        settings = self._settings()
        self.ledger.add(task.task_id, task.kind.value, cost(settings, task.kind))

    def chosen(self, stopped: str) -> list[str]:
        """What can be claimed now, in the order it came; it has its reserve then.

        `stopped`: why nothing can be, if that is so.
        """
        settings = self._settings()
        ledger = self.ledger
        ledger.limits = {
            "tasks": settings.limits.tasks,
            "record": settings.limits.record,
            "snapshot": settings.limits.snapshot,
            "page": settings.limits.page,
        }
        ledger.capacity = capacity(settings)
        busy = {(o.task.channel, o.task.cmd) for o in self._open.values() if o.child is not None}
        # Those that a worker was lost of come first: they were let in before.
        waiting = [o for o in self._open.values() if o.child is None]
        waiting.sort(key=lambda o: (o.task.claims == 0, o.task.number))
        held: set[str] = set()
        chosen = []
        for entry in waiting:
            task = entry.task
            entry.waiting_for = self._obstacle(task, busy, held, stopped)
            if entry.waiting_for:
                # Nobody overtakes on a channel.
                held.add(task.channel)
                continue
            ledger.add(task.task_id, task.kind.value, cost(settings, task.kind))
            busy.add((task.channel, task.cmd))
            chosen.append(task.task_id)
        return chosen

    def _obstacle(
        self, task: Task, busy: set[tuple[str, str]], held: set[str], stopped: str
    ) -> str:
        settings = self._settings()
        if self._members.child(task.task_id) is not None:
            return "its last worker is still ending"
        if task.state is State.STOPPING:
            return ""  # it only has to be finished, and that gives room
        if stopped:
            return stopped
        if task.channel:
            if (task.channel, task.cmd) in busy:
                return f"another {task.cmd} of the channel"
            if task.channel in held:
                return "a task of the channel that came before"
        if task.claims:
            return ""
        return self.ledger.refuse(task.kind.value, cost(settings, task.kind))

    def view(self, disk_free: float, stopped: str) -> CapacityView:
        """What there is and what is taken; `disk_free` in MiB."""
        most, reserved = capacity(self._settings()), self.ledger.reserved
        kinds = list(self.ledger.kinds.values())
        counts = {kind: kinds.count(kind) for kind in ("record", "snapshot", "page")}
        return CapacityView(
            capacity=most,
            reserved=reserved,
            free=Free(
                *(
                    max(getattr(most, name) - getattr(reserved, name), 0.0)
                    if getattr(most, name)
                    else None
                    for name in ("cpu", "memory_mb", "disk_kb")
                )
            ),
            tasks={**counts, "tasks": len(kinds)},
            limits=self.ledger.limits,
            waiting=sum(1 for o in self._open.values() if o.child is None),
            disk_free_mb=round(disk_free, 1),
            claims_stopped=stopped,
        )


def cost(settings: Egress, kind: Kind) -> Amount:
    """What a task of a kind is expected to take."""
    expected = settings.costs.get(kind.value)
    if expected is None:
        return Amount()
    return Amount(expected.cpu, expected.memory_mb, expected.disk_kb)


def capacity(settings: Egress) -> Amount:
    """What all tasks together may take: as configured, or what the machine has."""
    wanted = settings.capacity
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    return Amount(
        wanted.cpu or float(os.cpu_count() or 1), wanted.memory_mb or memory, wanted.disk_kb
    )
