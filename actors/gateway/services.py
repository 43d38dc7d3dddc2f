"""What all gateways share, given to each at its start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from actors.gateway.messages import RouterMessage
from config.model import Gateways
from supervisor.orphans import Registry
from supervisor.ref import Ref
from supervisor.store import Store


@dataclass(slots=True)
class Services:
    """`settings` gives the configuration in force now; `node` names this appliance."""

    store: Store
    registry: Registry
    settings: Callable[[], Gateways]
    folder: Path
    node: str
    starting: trio.CapacityLimiter
    router: Ref[RouterMessage] | None = None

    def run_folder(self, gw_id: str) -> Path:
        """A gateway's working folder."""
        return (self.folder / "gateways" / gw_id).absolute()

    def session_folder(self, gw_id: str, session: str) -> Path:
        """Where a session's recordings are."""
        return (self.folder / "recordings" / gw_id / session).absolute()
