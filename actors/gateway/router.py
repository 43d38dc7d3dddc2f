"""The router of the fleet: finds the actor of a gateway, starts it, and puts it away.

It never waits for a gateway: an ask is handed on, and the gateway answers. It also sets the ports
aside, because it alone knows of all gateways.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, assert_never

import trio

from actors.gateway import call_records, records
from actors.gateway.actor import GatewayActor
from actors.gateway.messages import (
    CommandGateway,
    GetGateway,
    Idle,
    Leftovers,
    ListGateways,
    Page,
    RouterMessage,
    SlotTaken,
    Started,
    StartGateway,
    StartWithSlot,
    StopGateway,
    Stopped,
    UseSlot,
)
from actors.gateway.ports import Slots, probe
from actors.gateway.prepare import check_request, profile_of
from actors.gateway.services import Services
from supervisor.actor import LATER, Actor
from supervisor.child import Child
from supervisor.errors import ActorDown, AskExpired, MailboxFull, Rejected
from supervisor.log import logger
from supervisor.ref import AnyRef
from supervisor.reply import Reply
from supervisor.spec import Cause, ChildSpec, Restart, StopReason
from supervisor.tree import Supervisor

# A gateway's process gets its profile's grace; this is what the actor gets around it.
GRACE = 12.0
# Less than what the fleet has, whatever a profile wants.
MAX_GRACE = 28.0
# A gateway that is busy for longer is listed as its row says, in seconds.
LIST_TIMEOUT = 2.0


class Directory:
    """Where the live gateways are: the router writes it, the API reads it."""

    def __init__(self) -> None:
        self.refs: dict[str, AnyRef] = {}

    def find(self, gw_id: str) -> AnyRef | None:
        """The reference of a live gateway."""
        return self.refs.get(gw_id)


class RouterActor(Actor[Any]):
    """One for the fleet; `members` is the supervisor of the gateways' actors."""

    mailbox_size = 1024

    def __init__(self, services: Services, members: Supervisor, directory: Directory) -> None:
        self._services = services
        self._members = members
        self._directory = directory
        settings = services.settings()
        self._slots = Slots(settings.ports, probe(settings.address))
        # Which profile each gateway with an actor was last started with: for the limits.
        self._kinds: dict[str, str] = {}
        # When each gateway was last handed a start, by trio's clock.
        self._started: dict[str, float] = {}

    async def on_start(self) -> None:
        """Find who is live: in the store, and, after a crash of this actor, in the tree."""
        self._services.router = self.context.child.ref
        self._directory.refs.clear()
        for child in self._members.children():
            self._directory.refs[child.spec.id] = child.ref
        for gw_id, slot, kind in await self._services.store.read(records.live):
            if slot is not None:
                self._slots.hold(gw_id, slot)
            self._ensure(gw_id, kind)
        self.spawn(self._look_for_leftovers)

    async def handle(self, message: RouterMessage) -> object:
        """See Actor.handle."""
        match message:
            case StartGateway():
                return self._start(message)
            case StopGateway() | CommandGateway() | GetGateway():
                return self._pass_on(message)
            case ListGateways():
                self.spawn(self._answering, self._list, message, self.defer())
                return LATER
            case Idle(gw_id, said):
                self._put_away(gw_id, said)
            case SlotTaken(gw_id, slot):
                self._move(gw_id, slot)
            case Leftovers(gw_ids):
                for gw_id in gw_ids:
                    self._ensure(gw_id)
            case _:
                assert_never(message)
        return None

    def _start(self, message: StartGateway) -> object:
        settings = self._services.settings()
        profile = profile_of(self._services, message.main_app)
        check_request(self._services, profile, message.request)
        self._slots.configure(settings.ports)
        if self._members_of(message) >= profile.limits.instances:
            limit = profile.limits.instances
            raise Rejected("too_many", f"{limit} gateways of {message.main_app!r} are up already")
        leaving = self._members.child(message.gw_id)
        if leaving is not None and self._directory.find(message.gw_id) is None:
            self.spawn(self._start_after, leaving, message, self.defer())
            return LATER
        slot = self._slots.take(message.gw_id)
        ref = self._ensure(message.gw_id, message.main_app)
        self._started[message.gw_id] = trio.current_time()
        ref.forward(StartWithSlot(message, slot), self.defer())
        return LATER

    async def _start_after(
        self, leaving: Child, message: StartGateway, reply: Reply[Started]
    ) -> None:
        """Its actor is just being put away: start when that is done."""
        while not leaving.ended:
            await leaving.change()
        self.context.child.ref.forward(message, reply)

    def _members_of(self, message: StartGateway) -> int:
        kind, gw_id = message.main_app, message.gw_id
        return sum(1 for g, k in self._kinds.items() if k == kind and g != gw_id)

    def _pass_on(self, message: StopGateway | CommandGateway | GetGateway) -> object:
        ref = self._directory.find(message.gw_id)
        if ref is not None:
            ref.forward(message, self.defer())
        else:
            self.spawn(self._answering, self._answer_for_absent, message, self.defer())
        return LATER

    async def _answering(
        self,
        find: Callable[[Any, Reply[Any]], Awaitable[None]],
        message: RouterMessage,
        reply: Reply[Any],
    ) -> None:
        """Work for one reply: what fails there fails that reply, and nobody else's."""
        try:
            await find(message, reply)
        except Exception as error:  # noqa: BLE001 - whatever it is, the asker gets it
            logger.error("answer_failed", actor=self.context.path, error=repr(error))
            refused = isinstance(error, Rejected)
            reply.fail(error if refused else Rejected("busy", "it cannot be looked up just now"))

    async def _answer_for_absent(
        self, message: StopGateway | CommandGateway | GetGateway, reply: Reply[Any]
    ) -> None:
        """It has no actor: it is down, or was never there. The row says which."""
        record = await self._services.store.read(records.load, message.gw_id)
        if record is None:
            reply.fail(Rejected("not_found", f"gateway {message.gw_id!r} was never started"))
        elif isinstance(message, GetGateway):
            reply.set(records.view(record))
        elif isinstance(message, StopGateway):
            reply.set(Stopped("stopped"))
        else:
            reply.fail(
                Rejected("stopped", f"gateway {message.gw_id!r} is down: it takes no commands")
            )

    async def _list(self, message: ListGateways, reply: Reply[Page]) -> None:
        found = await self._services.store.read(
            records.page, message.after, message.limit + 1, message.state
        )
        found, more = found[: message.limit], len(found) > message.limit
        views = [records.view(record) for record in found]

        async def look(i: int, ref: AnyRef) -> None:
            try:
                views[i] = await ref.ask(GetGateway(views[i].gw_id), timeout=LIST_TIMEOUT)
            except (ActorDown, AskExpired, MailboxFull, Rejected) as error:
                logger.debug("list_from_row", gw_id=views[i].gw_id, error=str(error))

        async with trio.open_nursery() as nursery:
            for i, view in enumerate(views):
                ref = self._directory.find(view.gw_id)
                if ref is not None:
                    nursery.start_soon(look, i, ref)
        reply.set(Page(views, views[-1].gw_id if more and views else None))

    # -- actors ---------------------------------------------------------------

    def _ensure(self, gw_id: str, kind: str = "") -> AnyRef:
        """The gateway's actor, started if it is not there."""
        if kind:
            self._kinds[gw_id] = kind
        ref = self._directory.find(gw_id)
        if ref is not None:
            return ref
        services = self._services
        profile = services.settings().profiles.get(kind)
        own = profile.stop.grace if profile is not None else 0.0
        spec = ChildSpec(
            id=gw_id,
            start=lambda: GatewayActor(gw_id, services),
            restart=Restart.PERMANENT,
            grace=min(max(GRACE, own + 3.0), MAX_GRACE),
        )
        child = self._members.start_child(spec)
        self._directory.refs[gw_id] = child.ref
        return child.ref

    def _put_away(self, gw_id: str, said: float) -> None:
        ref = self._directory.find(gw_id)
        if ref is None or ref.waiting or self._started.get(gw_id, -math.inf) >= said:
            return  # somebody wants something of it just now; it says so again
        self._started.pop(gw_id, None)
        del self._directory.refs[gw_id]
        self._kinds.pop(gw_id, None)
        self._slots.give_back(gw_id)
        reason = StopReason(Cause.REMOVED, "it has been down for a while")
        self.spawn(self._members.stop_child, gw_id, reason)

    def _move(self, gw_id: str, slot: int) -> None:
        ref = self._directory.find(gw_id)
        if ref is None:
            return
        logger.warning("ports_taken", gw_id=gw_id, slot=slot)
        try:
            moved: int | None = self._slots.take(gw_id, instead=True)
        except Rejected:
            moved = None
        try:
            ref.tell(UseSlot(moved))
        except (ActorDown, MailboxFull) as error:
            logger.warning("slot_not_told", gw_id=gw_id, error=str(error))

    async def _look_for_leftovers(self) -> None:
        """What a crash left unfinished of recordings and calls, also of gateways that are down."""
        base = self._services.folder / "recordings"

        def look() -> set[str]:
            return {path.parent.parent.name for path in base.glob("*/*/dump-*-dec.wav")}

        found = await trio.to_thread.run_sync(look)
        found.update(await self._services.store.read(records.with_pending_transcripts))
        found.update(await self._services.store.read(call_records.with_calls))
        if found:
            await self.post(Leftovers(tuple(sorted(found))))
