"""What all calls share."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from config.model import Calls
from supervisor.ref import AnyRef
from supervisor.store import Store


@dataclass(slots=True)
class Live:
    """A call in progress: its actor, and when something was last said of it, by trio's clock."""

    ref: AnyRef
    last: float


@dataclass(slots=True)
class Services:
    """`settings` gives the section in force. `live` is written by the router and the calls."""

    store: Store
    settings: Callable[[], Calls]
    live: dict[str, Live] = field(default_factory=dict)
    new_id: Callable[[], str] = lambda: str(uuid.uuid4())
