"""What the tests of webhooks share: real endpoints on a real store, and events of things."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from actors.webhook import records
from actors.webhook.messages import (
    Apply,
    DeliveryView,
    EndpointView,
    ListDeliveries,
    ListEndpoints,
    WebhookMessage,
)
from actors.webhook.router import WebhookRouter
from actors.webhook.services import Services
from config.model import Webhook
from supervisor.child import Child, State
from supervisor.event import Event
from supervisor.ref import Ref
from supervisor.spec import ChildSpec, Strategy
from supervisor.transaction import Transaction
from supervisor.tree import Supervisor
from tests.supervisor.kit import Bench, Tree, reach

PATIENCE = 20.0


def happen(tx: Transaction, subject: str, data: object) -> int:
    """Something happens to a thing."""
    return tx.emit("thing.happened", subject, data)


class Office:
    """A store, its log, and the webhooks part of the tree, as main.py puts it together."""

    def __init__(self, bench: Bench, endpoints: dict[str, Any]) -> None:
        self.bench = bench
        self.config = {n: msgspec.convert(e, Webhook) for n, e in endpoints.items()}
        self.services = Services(bench.store, bench.log, lambda: self.config)
        self.members = Supervisor()
        self.tree = Tree(
            [
                ChildSpec("endpoints", self._members, grace=8.0),
                ChildSpec("router", lambda: WebhookRouter(self.services, self.members)),
            ],
            Strategy.REST_FOR_ONE,
        )
        self._more = trio.Event()
        bench.on_publish = self._published
        self.events: list[Event] = bench.published

    def _members(self) -> Supervisor:
        self.members = Supervisor()
        return self.members

    def _published(self, events: list[Event]) -> None:
        self.events.extend(events)
        self._more.set()
        self._more = trio.Event()

    # -- what a test does ------------------------------------------------------------

    @property
    def router(self) -> Ref[WebhookMessage]:
        return self.tree.child("router").ref

    def child(self, name: str = "hook") -> Child:
        found = self.members.child(name)
        assert found is not None
        return found

    async def happens(self, subject: str = "thing/a", **data: Any) -> int:
        return await self.bench.store.write(happen, subject, data)

    async def apply(self, **endpoints: dict[str, Any]) -> None:
        """A reload with these."""
        self.config = {n: msgspec.convert(e, Webhook) for n, e in endpoints.items()}
        await self.router.ask(Apply(), 15)

    # -- what a test sees --------------------------------------------------------------

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The data of all events `webhook.<kind>` so far."""
        return [msgspec.json.decode(e.data) for e in self.events if e.type == f"webhook.{kind}"]

    async def event(self, kind: str, count: int = 1) -> dict[str, Any]:
        """The data of the latest such event, when there are so many."""
        with trio.fail_after(PATIENCE):
            while len(self.told(kind)) < count:
                await self._more.wait()
        return self.told(kind)[-1]

    async def view(self, name: str = "hook") -> EndpointView:
        listed = await self.router.ask(ListEndpoints())
        return next(it for it in listed.webhooks if it.name == name)

    async def viewed(
        self, wanted: Callable[[EndpointView], bool], name: str = "hook"
    ) -> EndpointView:
        """How it is, once it is as wanted. For what no event tells of."""
        view = await self.view(name)
        with trio.move_on_after(PATIENCE):
            while not wanted(view):
                await trio.sleep(0.01)
                view = await self.view(name)
            return view
        raise AssertionError(view)

    async def deliveries(self, state: str | None = None, name: str = "hook") -> list[DeliveryView]:
        """The newest first."""
        found = await self.router.ask(ListDeliveries(name, state, 2**62, 500))
        return found.deliveries


@asynccontextmanager
async def office(folder: Path, **endpoints: dict[str, Any]) -> AsyncIterator[Office]:
    """It runs, with these endpoints; the same folder again is a restart."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            bench = await Bench(folder, [records.migrations]).start(nursery)
            database = bench.database
            await bench.store.write(records.note_epoch, database.epoch, database.head)
            it = Office(bench, endpoints)
            await it.tree.start(nursery)
            await reach(it.tree.child("router"), State.RUNNING)
            try:
                yield it
            finally:
                await it.tree.stop()
                await bench.close()
