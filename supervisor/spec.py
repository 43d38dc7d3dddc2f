"""What a supervisor is told of a child: data only."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from supervisor.backoff import Backoff
from supervisor.intensity import Intensity

if TYPE_CHECKING:
    from supervisor.service import Service


class Restart(enum.Enum):
    """When a child that ended is started again."""

    PERMANENT = "permanent"  # always
    TRANSIENT = "transient"  # only after an abnormal end
    TEMPORARY = "temporary"  # never


class Strategy(enum.Enum):
    """Who else restarts when a child crashes."""

    ONE_FOR_ONE = "one_for_one"  # nobody
    REST_FOR_ONE = "rest_for_one"  # the children started after it


class Cause(enum.Enum):
    """Why a child ended."""

    NORMAL = "normal"  # it was done
    CRASH = "crash"  # an exception came out of it
    NOT_READY = "not_ready"  # it was not ready in time
    SHUTDOWN = "shutdown"  # the appliance stops
    REMOVED = "removed"  # its owner does not need it any more
    BY_HAND = "by_hand"  # somebody asked for a restart
    SIBLING = "sibling"  # an earlier sibling crashed (rest_for_one)
    RECONFIGURED = "reconfigured"  # its section of the configuration changed


@dataclass(frozen=True, slots=True)
class StopReason:
    """Why a child stopped, for programs (`cause`) and for people (`detail`)."""

    cause: Cause
    detail: str = ""

    @property
    def abnormal(self) -> bool:
        """Does it count as a failure?"""
        return self.cause in (Cause.CRASH, Cause.NOT_READY)

    def __str__(self) -> str:
        return f"{self.cause.value}: {self.detail}" if self.detail else self.cause.value


# Frozen, so that all specs can share them.
_INTENSITY = Intensity()
_BACKOFF = Backoff()


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start a child, and what to do when it ends.

    `grace` and `ready_timeout` are in seconds. `significant`: when this child is past its
    restart intensity, the tree as a whole ends (with the child's reason).
    """

    id: str
    start: Callable[[], Service]
    restart: Restart = Restart.PERMANENT
    grace: float = 5.0
    ready_timeout: float = 30.0
    intensity: Intensity = _INTENSITY
    backoff: Backoff = _BACKOFF
    significant: bool = False
    stuck_after: float = 10.0
