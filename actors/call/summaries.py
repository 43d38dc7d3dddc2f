"""Sums up calls when they are over, and again when events come after that."""

from __future__ import annotations

import msgspec
import trio

from actors.call import lookup, story
from actors.call.lookup import KeptEvent
from actors.call.messages import Json
from actors.call.records import Call
from actors.call.services import Services
from actors.call.story import Heard, Story
from actors.call.summary import summarize
from supervisor.errors import Rejected
from supervisor.log import logger
from supervisor.service import Context, Service
from supervisor.transaction import Reading

AT_ONCE = 20
LOOK_EVERY = 1.0
# After a round that found as much as it takes, so that what is asked for comes first.
PAUSE = 0.01


class Summaries(Service):
    """Looks for what is to be summed up: the rows say it, so a restart goes on."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def run(self, context: Context) -> None:
        """See Service.run."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_on, context)
            context.ready()
            await context.stopped()
            nursery.cancel_scope.cancel()

    async def _keep_on(self, context: Context) -> None:
        while True:
            more = False
            try:
                context.begin("sum up")
                more = await self.once()
            except Rejected as error:
                logger.warning("summaries_put_off", error=str(error))
            context.idle()
            await trio.sleep(PAUSE if more else LOOK_EVERY)

    async def once(self) -> bool:
        """Some of them; are there more?"""
        services = self._services
        silence = round(services.settings().silence * 1000)
        found = await services.store.read(_some, silence)
        for call, summary in found:
            await services.store.write(lookup.sum_up, call, summary)
        return len(found) == AT_ONCE


def _some(db: Reading, silence: int) -> list[tuple[Call, Json]]:
    return [
        (call, summarize(story_of(call, lookup.events(db, call.number)), call.status, silence))
        for call in lookup.to_sum_up(db, AT_ONCE)
    ]


def story_of(call: Call, events: list[KeptEvent]) -> Story:
    """A call's story, from its row and its events."""
    decode = msgspec.json.decode
    heard = [Heard(e.ts, e.type, decode(e.payload)) for e in events]
    return story.read(call.started_at, call.ended_at, heard)
