"""Processes that overwrite their environment, where our marker is, are kept by pid and start time.

So that what a killed appliance left of them is found by the next start (supervisor/orphans.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from supervisor import orphans
from supervisor.orphans import Registry
from supervisor.store import Store


class Noted:
    """Called with the groups of a page: when it is there, and again when it is gone."""

    def __init__(self, registry: Registry, store: Store, owner: str) -> None:
        self._registry = registry
        self._store = store
        self._owner = owner
        self._started: dict[int, int] = {}

    def __call__(self, groups: Sequence[int], there: bool) -> None:
        """Keep them, or forget them."""
        for pid in groups:
            known = self._registry.groups.get(pid)
            if there and known is not None:
                self._started[pid] = started = known[0]
                boot = self._registry.boot
                self._store.submit(orphans.note, pid, started, boot, self._owner, "page")
            elif not there and pid in self._started:
                self._store.submit(orphans.drop, pid, self._started.pop(pid))
