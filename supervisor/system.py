"""What all nodes of one tree share, and where the tree tells of itself."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from supervisor.spec import StopReason


@dataclass(frozen=True, slots=True)
class Happening:
    """Something the tree did that an operator wants to know."""

    kind: str  # crashed | restarted | quarantined | revived
    path: str
    reason: StopReason
    restarts: int


@dataclass(slots=True)
class System:
    """Shared by reference: the source of jitter, and the listener for happenings.

    `listener` is called on trio's thread, must not wait and must not raise.
    """

    rng: random.Random = field(default_factory=random.Random)
    listener: Callable[[Happening], None] = lambda _happening: None
