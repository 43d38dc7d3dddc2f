"""What all sides of a gateway's actor share: its state, and how it is written and told.

The actor is three layers: this one, then `talking.py` (calls and what becomes of their sound) and
`launching.py` (the process), then `actor.py` (messages, start and stop).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVarTuple

import trio

from actors.gateway import records
from actors.gateway.calls import Calls, Told
from actors.gateway.launch import Launch
from actors.gateway.machine import State
from actors.gateway.media import Media
from actors.gateway.messages import Json, RelaunchNow, RouterMessage
from actors.gateway.records import Record
from actors.gateway.services import Services
from actors.gateway.stream import Streaming
from config.model import RestartRule
from supervisor.actor import Actor
from supervisor.backoff import Backoff
from supervisor.errors import ActorDown, MailboxFull, Rejected
from supervisor.intensity import Intensity, RestartWindow
from supervisor.log import logger
from supervisor.transaction import Transaction

Ts = TypeVarTuple("Ts")


class GatewayBase(Actor[Any]):
    """State and small things."""

    mailbox_size = 128

    def __init__(self, gw_id: str, services: Services) -> None:
        self._gw_id = gw_id
        self._services = services
        self._record: Record | None = None
        self._launch: Launch | None = None
        self._generation = 0
        self._calls = Calls()
        # The disk refused an event of a call: which rows are kept is not which calls there are.
        self._calls_unkept = False
        self._failures = 0
        self._up_since: float | None = None
        self._window = RestartWindow(Intensity())
        self._rng = random.Random()  # noqa: S311 - jitter
        self._streaming: Streaming | None = None
        # That one, and those that still send the last of their calls.
        self._streams: set[Streaming] = set()
        self._dialled_at = 0.0
        self._dial_failures = 0
        self._moves = 0
        self._shown = 0.0
        self._transcripts: dict[str, tuple[float, int]] = {}
        self._profile_stale = False
        self._media: Media

    def _is(self, state: State) -> bool:
        return self._record is not None and self._record.state is state

    def _sip(self) -> str | None:
        launch = self._launch
        if launch is None or launch.profile.control != "ctrl_tcp":
            return None
        return f"sip:{self._gw_id}@{launch.address}:{launch.ports.sip}"

    def _rule(self) -> RestartRule:
        assert self._record is not None
        profile = self._services.settings().profiles.get(self._record.main_app)
        return profile.restart if profile is not None else RestartRule()

    def _backoff(self) -> Backoff:
        rule = self._rule()
        return Backoff(first=rule.backoff_first, cap=rule.backoff_cap)

    def _tell_router(self, message: RouterMessage) -> bool:
        """False when it could not be told."""
        router = self._services.router
        if router is None:
            return False
        try:
            router.tell(message)
        except (ActorDown, MailboxFull) as error:
            logger.warning("router_not_told", actor=self.context.path, error=str(error))
            return False
        return True

    async def _save(self, type: str, data: Json) -> None:
        record = self._record
        assert record is not None
        await self._services.store.write(records.save_and_tell, record, type, data)

    async def _announce(self, type: str, data: Json) -> None:
        await self._write_or_log(records.tell_all, self._gw_id, [(type, data)])

    async def _write_or_log(self, fn: Callable[[Transaction, *Ts], object], *args: *Ts) -> bool:
        """A write that nobody waits for the answer of: a failing disk must not end the gateway."""
        try:
            await self._services.store.write(fn, *args)
        except Rejected as error:
            logger.error("not_kept", actor=self.context.path, error=str(error))
            return False
        return True

    async def _tell_calls(self, told: list[Told]) -> None:
        """Events of its calls, and their rows with them."""
        if told and not await self._write_or_log(records.tell_all, self._gw_id, told):
            self._calls_unkept = True

    async def _end_calls(self, reason: str = "the gateway ended") -> None:
        """What ran is gone, and its calls with it: each that was told of is told to be over."""
        told = self._calls.clear(trio.current_time(), reason)
        if told or self._calls_unkept:
            kept = await self._write_or_log(records.end_calls, self._gw_id, told, reason)
            self._calls_unkept = not kept

    async def _renew_if_quiet(self) -> None:
        """Its profile has changed: launch again with the new one, unless a call is in progress."""
        if self._profile_stale and self._is(State.UP) and not len(self._calls):
            self._profile_stale = False
            record, launch = self._record, self._launch
            assert record is not None
            if launch is not None and record.main_app in self._services.settings().profiles:
                record.state = State.RESTARTING
                try:
                    await self._save("gateway.restarting", {"reason": "its profile was changed"})
                except Rejected:
                    record.state, self._profile_stale = State.UP, True
                    raise
                # Its end belongs to a generation that is over: it is not a death.
                self._generation += 1
                self.spawn(self._replace, launch, self._generation)

    async def _replace(self, launch: Launch, generation: int) -> None:
        await launch.stop(force=False)
        # A container's name is free only when its run is over, not when it has stopped.
        await launch.over.wait()
        await self.post(RelaunchNow(generation))
