"""The router of calls: begins them, takes what comes after their end, and ends the forgotten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, assert_never

import trio

from actors.call import erase, records
from actors.call.actor import CallActor, perform
from actors.call.messages import (
    AddArtifacts,
    AppendEvents,
    Began,
    CallMessage,
    EndCall,
    Erase,
    Look,
    RouterMessage,
    SetTimeline,
    StartCall,
)
from actors.call.services import Live, Services
from supervisor.actor import LATER, Actor
from supervisor.errors import Rejected, StartFailed
from supervisor.log import logger
from supervisor.ref import AnyRef
from supervisor.reply import Reply
from supervisor.spec import Cause, ChildSpec, Restart, StopReason
from supervisor.tree import Supervisor

LOOK_EVERY = 5.0
GRACE = 2.0
# Calls that are ended for nothing was said of them, at once.
IDLE_AT_ONCE = 200


class CallRouter(Actor[Any]):
    """One for the appliance; `members` is the supervisor of the calls' actors."""

    mailbox_size = 16_384

    def __init__(self, services: Services, members: Supervisor, eraser: erase.Eraser) -> None:
        self._services = services
        self._members = members
        self._eraser = eraser
        self._starting = 0

    async def on_start(self) -> None:
        """Go on with all that were in progress: they get the whole idle time again."""
        live = self._services.live
        live.clear()
        now = trio.current_time()
        for call_id in await self._services.store.read(records.live):
            child = self._members.child(call_id)
            if child is not None and not child.ended:
                live[call_id] = Live(child.ref, now)
            else:
                self._begin(call_id)
        self.spawn(self._ticking)

    async def handle(self, message: RouterMessage) -> object:
        """See Actor.handle."""
        match message:
            case StartCall():
                if len(self._services.live) + self._starting >= self._services.settings().live:
                    self.spawn(self._answering, self._known, message, self.defer())
                    return LATER
                self._starting += 1
                self.spawn(self._answering, self._start, message, self.defer())
                return LATER
            case AppendEvents() | EndCall() | AddArtifacts() | SetTimeline():
                # Of a call that has no actor, or whose actor is just gone.
                self.spawn(self._answering, self._perform, message, self.defer())
                return LATER
            case Erase():
                self.spawn(self._answering, self._erase, message, self.defer())
                return LATER
            case Look():
                self._look()
            case _:
                assert_never(message)
        return None

    async def _answering(
        self, do: Callable[[Any], Awaitable[Any]], message: object, reply: Reply[Any]
    ) -> None:
        try:
            reply.set(await do(message))
        except Rejected as error:
            reply.fail(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the asker gets an answer
            logger.error("answer_failed", actor=self.context.path, exc_info=error)
            reply.fail(Rejected("busy", "it cannot be done just now"))

    # -- calls ----------------------------------------------------------------------

    async def _start(self, message: StartCall) -> Began:
        services = self._services
        try:
            call_id, new = await services.store.write(
                records.start, services.new_id(), message.call
            )
        finally:
            self._starting -= 1
        if new:
            self._begin(call_id)
        return Began(call_id, new)

    async def _known(self, message: StartCall) -> Began:
        """There is no room for another call: but one that was taken before is told its id."""
        call_id = await self._services.store.read(records.known, message.call)
        if call_id is None:
            raise Rejected("too_many", f"{len(self._services.live)} calls are live already")
        return Began(call_id, new=False)

    def _begin(self, call_id: str) -> None:
        services = self._services
        spec = ChildSpec(
            id=call_id,
            start=lambda: CallActor(call_id, services),
            restart=Restart.TRANSIENT,
            grace=GRACE,
        )
        try:
            child = self._members.start_child(spec)
        except (ValueError, StartFailed) as error:
            # What is said of it is taken by us; and by us it is ended when nobody says anything.
            logger.warning("call_without_actor", call_id=call_id, error=str(error))
            ref: AnyRef = self.context.child.ref
        else:
            ref = child.ref
        services.live[call_id] = Live(ref, trio.current_time())

    async def _perform(self, message: CallMessage) -> object:
        live = self._services.live.get(message.call_id)
        if live is not None:
            live.last = trio.current_time()
        answer = await perform(self._services, message)
        if isinstance(message, EndCall):
            self._services.live.pop(message.call_id, None)
            await self._members.stop_child(message.call_id, StopReason(Cause.REMOVED, "it ended"))
        return answer

    async def _erase(self, message: Erase) -> object:
        await self._eraser.check(message.number)
        ids = await self._services.store.read(erase.call_ids, message.number)
        for call_id in ids:
            self._services.live.pop(call_id, None)
            await self._members.stop_child(call_id, StopReason(Cause.REMOVED, "erased"))
        return await self._eraser.erase(message.number, message.by)

    # -- what is forgotten ------------------------------------------------------------

    async def _ticking(self) -> None:
        while True:
            await trio.sleep(LOOK_EVERY)
            await self.post(Look())

    def _look(self) -> None:
        limit = trio.current_time() - self._services.settings().idle_timeout
        idle = [call_id for call_id, live in self._services.live.items() if live.last < limit]
        if idle:
            self.spawn(self._end_idle, idle[:IDLE_AT_ONCE])

    async def _end_idle(self, call_ids: list[str]) -> None:
        services = self._services
        for call_id in call_ids:
            live = services.live.get(call_id)
            if live is None or live.last > trio.current_time() - services.settings().idle_timeout:
                continue
            try:
                await services.store.write(records.end_idle, call_id)
            except Rejected as error:
                logger.warning("idle_call_kept", call_id=call_id, error=str(error))
                return
            services.live.pop(call_id, None)
            reason = StopReason(Cause.REMOVED, records.IDLE)
            await self._members.stop_child(call_id, reason)
