"""A call in progress: takes what is said of it, one thing at a time, until it ends."""

from __future__ import annotations

from typing import assert_never

import trio

from actors.call import records
from actors.call.messages import AddArtifacts, AppendEvents, CallMessage, EndCall, SetTimeline
from actors.call.services import Services
from supervisor.actor import Actor


class CallActor(Actor[CallMessage]):
    """The row is the truth; this keeps a call's messages in order, and knows that it is live.

    Each message waits for its commit, which it shares with those of other calls: what is answered
    is on the disk, and what came later comes later.
    """

    mailbox_size = 256

    def __init__(self, call_id: str, services: Services) -> None:
        self._call_id = call_id
        self._services = services

    async def handle(self, message: CallMessage) -> object:
        """See Actor.handle."""
        services = self._services
        live = services.live.get(self._call_id)
        if live is not None:
            live.last = trio.current_time()
        answer = await perform(services, message)
        if isinstance(message, EndCall):
            services.live.pop(self._call_id, None)
            self.stop_soon()
        return answer


async def perform(services: Services, message: CallMessage) -> object:
    """Do what a message says: of a call that is live, and of one that is over."""
    store, late = services.store, services.settings().late
    match message:
        case AppendEvents(call_id, batch):
            return await store.write(records.append, call_id, batch, late)
        case EndCall():
            return await store.write(records.end, message, late)
        case AddArtifacts(call_id, artifacts):
            return await store.write(records.add_artifacts, call_id, artifacts)
        case SetTimeline(call_id, timeline):
            return await store.write(records.set_timeline, call_id, timeline)
        case _:
            assert_never(message)
