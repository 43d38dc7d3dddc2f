"""What all endpoints share, given to each at its start; and how each is now, for the API."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx

from config.model import Webhook
from supervisor.bus import EventLog
from supervisor.store import Store


@dataclass(slots=True)
class Standing:
    """How one endpoint is; its actor writes it. `cursor`: what it has looked at of the log."""

    section: Webhook
    disabled: str = ""
    since: str = ""
    away: bool = False
    dead: int = 0
    cursor: int | None = None


@dataclass(slots=True)
class Board:
    """All endpoints that have an actor, by name."""

    standings: dict[str, Standing] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """What an operator should look at."""
        found = []
        for name, it in sorted(self.standings.items()):
            if it.disabled:
                found.append(f"webhook {name!r} is disabled since {it.since}: {it.disabled}")
            if it.dead:
                found.append(
                    f"webhook {name!r} has {it.dead} dead letters:"
                    f" see `switchboard webhooks dead {name}`"
                )
        return found


@dataclass(slots=True)
class Services:
    """`settings` gives the endpoints of the configuration in force now."""

    store: Store
    log: EventLog
    settings: Callable[[], Mapping[str, Webhook]]
    board: Board = field(default_factory=Board)
    _tls: ssl.SSLContext | None = None

    def tls(self) -> ssl.SSLContext:
        """Trust in the system's authorities and in those that browsers know; made when needed.

        Reading them takes as long as a hundred deliveries: one for all endpoints.
        """
        if self._tls is None:
            self._tls = httpx.create_ssl_context(trust_env=False)
            self._tls.load_default_certs()
        return self._tls
