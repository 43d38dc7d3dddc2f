"""Starts an actor for each endpoint of the configuration, and hands on what is asked of one.

Those that a reload does not touch keep their connections and what they have under way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

import trio

from actors.webhook import delivery_records, records
from actors.webhook.actor import DRAIN, EndpointActor
from actors.webhook.messages import (
    Apply,
    Deliveries,
    Enable,
    Endpoints,
    EndpointView,
    ListDeliveries,
    ListEndpoints,
    Ping,
    Redrive,
    WebhookMessage,
)
from actors.webhook.records import Overview
from actors.webhook.services import Services
from config.model import Webhook
from config.webhooks import shown_url
from supervisor.actor import LATER, Actor
from supervisor.errors import Rejected, StoreUnavailable
from supervisor.log import logger
from supervisor.reply import Reply
from supervisor.spec import Cause, ChildSpec, StopReason
from supervisor.tree import Supervisor


class WebhookRouter(Actor[Any]):
    """One for the appliance; `members` is the supervisor of the endpoints' actors."""

    def __init__(self, services: Services, members: Supervisor) -> None:
        self._services = services
        self._members = members

    async def on_start(self) -> None:
        """Start all; after a crash of this actor, those that are not there."""
        await self._apply(self._services.settings())

    async def handle(self, message: WebhookMessage) -> object:
        """See Actor.handle."""
        match message:
            case ListEndpoints():
                self.spawn(self._list, self.defer())
                return LATER
            case ListDeliveries():
                self.spawn(self._page, message, self.defer())
                return LATER
            case Redrive(name) | Enable(name, _) | Ping(name):
                child = self._members.child(name)
                if child is None:
                    raise Rejected("not_found", f"there is no webhook {name[:80]!r}")
                child.ref.forward(message, self.defer())
                return LATER
            case Apply():
                await self._apply(self._services.settings())
            case _:
                assert_never(message)
        return None

    # -- the configuration ------------------------------------------------------

    async def _apply(self, wanted: Mapping[str, Webhook]) -> None:
        standings = self._services.board.standings
        present = [child.spec.id for child in self._members.children()]
        async with trio.open_nursery() as nursery:
            for name in present:
                if name not in wanted:
                    nursery.start_soon(self._end, name, Cause.REMOVED)
                elif standings[name].section != wanted[name]:
                    nursery.start_soon(self._end, name, Cause.RECONFIGURED)
        for name in set(standings) - set(wanted):
            del standings[name]
        services = self._services
        try:
            # Before they start: whoever is told that they are there may count on what happens next.
            await services.store.write(records.note_configured, list(wanted), services.log.epoch)
        except StoreUnavailable as error:
            # Each begins by itself when the disk lets it.
            logger.warning("webhooks_not_noted", error=str(error))
        for name, section in wanted.items():
            if self._members.child(name) is None:
                self._start(name, section)

    def _start(self, name: str, section: Webhook) -> None:
        def start() -> EndpointActor:
            return EndpointActor(self._services, name, section)

        # What is sent when it is to stop gets DRAIN, and its row a moment more.
        self._members.start_child(ChildSpec(name, start, grace=DRAIN + 2))

    async def _end(self, name: str, cause: Cause) -> None:
        await self._members.stop_child(name, StopReason(cause, "the configuration changed"))

    # -- what is shown ------------------------------------------------------------

    async def _list(self, reply: Reply[Endpoints]) -> None:
        try:
            rows = await self._services.store.read(records.overview)
        except StoreUnavailable as error:
            reply.fail(error)
            return
        reply.set(Endpoints([self._view(row) for row in rows]))

    def _view(self, row: Overview) -> EndpointView:
        it = self._services.board.standings.get(row.name)
        log = self._services.log
        section = None if it is None else it.section
        seq = row.seq if it is None or it.cursor is None else it.cursor
        return EndpointView(
            name=row.name,
            state=_state(row, section, away=it is not None and it.away),
            reason=row.disabled,
            since=row.since or row.removed,
            url="" if section is None else shown_url(section.url),
            topics=[] if section is None else list(section.topics),
            pending=row.pending,
            dead=row.dead,
            cursor=log.token(seq),
            behind=max(log.head - seq, 0),
            last_success=row.last_success,
            last_failure=row.last_failure,
            last_error=row.last_error,
        )

    async def _page(self, message: ListDeliveries, reply: Reply[Deliveries]) -> None:
        name, limit = message.name, message.limit
        store = self._services.store
        try:
            if not await store.read(records.known, name):
                raise Rejected("not_found", f"there is no webhook {name[:80]!r}")
            found = await store.read(
                delivery_records.page, name, message.state, message.before, limit
            )
        except Rejected as error:
            reply.fail(error)
            return
        reply.set(Deliveries(found, str(found[-1].seq) if len(found) == limit else None))


def _state(row: Overview, section: Webhook | None, *, away: bool) -> str:
    if section is None:
        return "removed"
    if not section.enabled:
        return "off"
    if row.disabled:
        return "disabled"
    return "away" if away else "active"
