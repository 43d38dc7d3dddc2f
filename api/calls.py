"""contracts/runtime-config-and-calls.md as operations: parse, ask a call, shape the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import trio

from actors.call import erase, lookup, records, transcript
from actors.call.lookup import Filter
from actors.call.machine import Status
from actors.call.messages import (
    AddArtifacts,
    AppendEvents,
    CallMessage,
    EndCall,
    Erase,
    Json,
    NewCall,
    SetTimeline,
    StartCall,
)
from actors.call.resolve import Resolver
from actors.call.services import Services
from api.call_bodies import (
    ArtifactsBody,
    CallId,
    CallView,
    EndBody,
    EraseBody,
    ErasureAnswer,
    ErasuresAnswer,
    EventsAnswer,
    EventsBody,
    EventsQuery,
    ListAnswer,
    ListQuery,
    Ok,
    PageQuery,
    StartBody,
    TimelineBody,
    TranscriptQuery,
)
from api.call_parts import (
    batch_of,
    digest,
    events_of,
    stamp,
    story_of_call,
    timeline_of,
    view,
    whole,
)
from api.errors import RUNTIME, ApiError
from api.operation import Answer, Call, Nothing, Operation
from api.streams import Part
from config.runtime import Runtime, as_reported
from supervisor.errors import ActorDown
from supervisor.log import logger
from supervisor.mailbox import Ask
from supervisor.ref import Ref

# Batches wait for their commit behind others.
TIMEOUT = 30.0
# Decoding and checking more events than these is left to a thread.
MANY = 200


class CallsApi:
    """The handlers. `runtime` gives the section in force, `depth` how deep JSON may be nested."""

    def __init__(
        self,
        router: Ref[Any],
        services: Services,
        resolver: Resolver,
        runtime: Callable[[], Runtime],
        depth: Callable[[], int],
    ) -> None:
        self._router = router
        self._services = services
        self._resolver = resolver
        self._runtime = runtime
        self._depth = depth

    # -- a call goes on ----------------------------------------------------------------

    async def start(self, call: Call[Nothing, StartBody]) -> CallId:
        """POST /internal/v1/calls/start."""
        body = call.body
        found = self._resolver.find(body.phone_number_id) if body.phone_number_id else None
        if found is None and body.to_number:
            # A call goes on whatever the configuration has of its number.
            found = self._resolver.find(body.to_number)
        runtime = self._runtime()
        agent_id = (found[1].agent or "") if found is not None else ""
        agent = runtime.agents.get(agent_id)
        region = runtime.tenants[found[1].tenant].region if found is not None else ""
        started_at = stamp("started_at", body.started_at)
        new = NewCall(
            body.provider,
            body.provider_call_id,
            body.provider_stream_id,
            body.phone_number_id or (found[0] if found is not None else ""),
            found[1].tenant if found is not None else "",
            agent_id,
            agent.published if agent is not None else None,
            body.from_number,
            body.to_number,
            as_reported(body.from_number, region),
            as_reported(body.to_number, region),
            started_at,
            digest(
                body.provider_stream_id,
                body.phone_number_id,
                body.from_number,
                body.to_number,
                started_at,
            ),
        )
        began = await self._router.ask(StartCall(new), TIMEOUT)
        return CallId(call_id=began.call_id)

    async def append(self, call: Call[Nothing, EventsBody]) -> Ok:
        """POST /internal/v1/calls/{call_id}/events."""
        events = call.body.events
        most = self._services.settings().batch_events
        if len(events) > most:
            raise ApiError(
                422, "invalid", f"events: at most {most} at once", {"action": "send them in parts"}
            )
        if len(events) > MANY:
            batch = await trio.to_thread.run_sync(batch_of, events, self._depth())
        else:
            batch = batch_of(events, self._depth())
        await self._tell(AppendEvents(call.params["call_id"], batch))
        return Ok()

    async def end(self, call: Call[Nothing, EndBody]) -> CallId:
        """POST /internal/v1/calls/{call_id}/end."""
        body = call.body
        ended_at = stamp("ended_at", body.ended_at)
        message = EndCall(
            call.params["call_id"],
            Status(body.status),
            ended_at,
            body.duration_seconds,
            digest(body.status, ended_at, body.duration_seconds),
        )
        await self._tell(message)
        return CallId(call_id=message.call_id)

    async def artifacts(self, call: Call[Nothing, ArtifactsBody]) -> CallId:
        """POST /internal/v1/calls/{call_id}/artifacts."""
        body, call_id = call.body, call.params["call_id"]
        sent = {"recording": body.recording or {}, "transcript": body.transcript or {}}
        kept = {kind: {k: v for k, v in found.items() if v} for kind, found in sent.items()}
        await self._tell(AddArtifacts(call_id, {k: v for k, v in kept.items() if v}))
        return CallId(call_id=call_id)

    async def draw(self, call: Call[Nothing, TimelineBody]) -> CallId:
        """POST /internal/v1/calls/{call_id}/timeline."""
        body = call.body.timeline
        if body.generated_at is not None:
            stamp("timeline.generated_at", body.generated_at)
        if body.origin is not None and body.origin.ts is not None:
            stamp("timeline.origin.ts", body.origin.ts)
        drawn = msgspec.to_builtins(body)
        for marker in drawn["markers"]:
            marker["type"] = marker["type"] or marker.pop("kind")
            marker.pop("kind", None)
        call_id = call.params["call_id"]
        await self._tell(SetTimeline(call_id, drawn))
        return CallId(call_id=call_id)

    async def _tell(self, message: CallMessage) -> None:
        """To the call itself; where it has no actor, or has just lost it, to the router."""
        asked: Ask[Any] = message
        live = self._services.live.get(message.call_id)
        if live is not None:
            try:
                await live.ref.ask(asked, TIMEOUT)
            except ActorDown as error:
                # It ended meanwhile. What it did all the same is done once.
                logger.debug("call_without_actor", call_id=message.call_id, error=str(error))
            else:
                return
        await self._router.ask(asked, TIMEOUT)

    # -- looking at calls -----------------------------------------------------------------

    async def list_calls(self, call: Call[ListQuery, Nothing]) -> ListAnswer:
        """GET /internal/v1/calls."""
        query = call.query
        wanted = Filter(
            query.status or "",
            query.tenant_id,
            query.phone_number_id,
            as_reported(query.number),
            query.outcome,
            query.provider_call_id,
            stamp("since", query.since) if query.since else "",
            stamp("until", query.until) if query.until else "",
        )
        rows = await self._services.store.read(lookup.page, wanted, query.before, query.limit + 1)
        more = len(rows) > query.limit
        rows = rows[: query.limit]
        return ListAnswer(calls=[view(row) for row in rows], next=rows[-1].number if more else None)

    async def get(self, call: Call[Nothing, Nothing]) -> CallView:
        """GET /internal/v1/calls/{call_id}."""
        row, summary, files = await self._services.store.read(
            whole, call.params["call_id"], self._silence()
        )
        return view(row, summary, files)

    async def events(self, call: Call[EventsQuery, Nothing]) -> EventsAnswer:
        """GET /internal/v1/calls/{call_id}/events."""
        query = call.query
        ts, _, place = query.after.partition("/")
        found, more = await self._services.store.read(
            events_of, call.params["call_id"], (ts, int(place or 0)), query.limit
        )
        following = f"{found[-1].ts}/{found[-1].place}" if more else None
        return EventsAnswer(events=found, next=following)

    async def transcript(self, call: Call[TranscriptQuery, Nothing]) -> Answer:
        """GET /internal/v1/calls/{call_id}/transcript."""
        _row, story = await self._services.store.read(story_of_call, call.params["call_id"])
        if call.query.format == "jsonl":
            return Answer(transcript.json_lines(story), content_type="application/jsonl")
        text = transcript.text(story).encode()
        return Answer(text, content_type="text/plain; charset=utf-8")

    async def timeline(self, call: Call[Nothing, Nothing]) -> Json:
        """GET /internal/v1/calls/{call_id}/timeline."""
        return await self._services.store.read(timeline_of, call.params["call_id"], self._silence())

    async def stream(self, call: Call[Nothing, Nothing]) -> Part:
        """GET /internal/v1/calls/{call_id}/stream: what streams.py makes a stream of."""
        row = await self._services.store.read(records.found, call.params["call_id"])
        # The row has the number of the event that tells of its start.
        return Part(f"call/{row.call_id}", row.number - 1)

    def _silence(self) -> int:
        return round(self._services.settings().silence * 1000)

    # -- privacy -------------------------------------------------------------------------

    async def erase(self, call: Call[Nothing, EraseBody]) -> ErasureAnswer:
        """POST /internal/v1/erasures."""
        number = as_reported(call.body.number)
        done = await self._router.ask(Erase(number, call.caller), 600.0)
        return ErasureAnswer(**done)

    async def erasures(self, call: Call[PageQuery, Nothing]) -> ErasuresAnswer:
        """GET /internal/v1/erasures."""
        query = call.query
        found = await self._services.store.read(erase.erasures, query.before, query.limit + 1)
        more = len(found) > query.limit
        found = found[: query.limit]
        return ErasuresAnswer(erasures=found, next=found[-1]["number"] if more else None)

    def operations(self) -> list[Operation]:
        """The rows of the table."""
        base = "/internal/v1/calls"
        one = f"{base}/{{call_id}}"

        def row(
            id: str, method: str, path: str, summary: str, handler: Any, answer: Any, **more: Any
        ) -> Operation:
            more.setdefault("scope", "calls:ro" if method == "GET" else "calls:rw")
            return Operation(
                id=id, method=method, path=path, surface=RUNTIME, summary=summary,
                handler=handler, answer=answer, **more,
            )  # fmt: skip

        def batch() -> int:
            return self._services.settings().batch_bytes

        return [
            row(
                "startCall", "POST", f"{base}/start", "A call begins.", self.start, CallId,
                body=StartBody, creates=True, errors=(409, 422, 503, 507),
            ),
            row(
                "listCalls", "GET", base, "Calls, the newest first, a page at a time.",
                self.list_calls, ListAnswer, query=ListQuery, errors=(422,),
            ),
            row(
                "getCall", "GET", one, "One call, with its numbers and files.", self.get,
                CallView, errors=(404,),
            ),
            row(
                "appendCallEvents", "POST", f"{one}/events",
                "Events of a call: all of a batch or none, each once.", self.append, Ok,
                body=EventsBody, body_limit=batch, own_depth=True,
                errors=(404, 409, 413, 422, 503, 507),
            ),
            row(
                "callEvents", "GET", f"{one}/events",
                "Events of a call in the order of their times.",
                self.events, EventsAnswer, query=EventsQuery, errors=(404, 422),
            ),
            row(
                "endCall", "POST", f"{one}/end", "A call is over.", self.end, CallId,
                body=EndBody, errors=(404, 409, 422, 503, 507),
            ),
            row(
                "addArtifacts", "POST", f"{one}/artifacts",
                "Where recordings and transcripts of a call are.", self.artifacts, CallId,
                body=ArtifactsBody, errors=(404, 422, 503, 507),
            ),
            row(
                "setTimeline", "POST", f"{one}/timeline", "The timeline as the gateway made it.",
                self.draw, CallId, body=TimelineBody, body_limit=batch,
                errors=(404, 413, 422, 503, 507),
            ),
            row(
                "callTimeline", "GET", f"{one}/timeline",
                "A call along time: as the gateway sent it, or computed from its events.",
                self.timeline, dict[str, Any], errors=(404,),
            ),
            row(
                "callTranscript", "GET", f"{one}/transcript",
                "What was said, as text or as lines of JSON.", self.transcript, str,
                query=TranscriptQuery, content_type="text/plain",
                other_types=("application/jsonl",), errors=(404, 422),
            ),
            row(
                "callStream", "GET", f"{one}/stream",
                "A call as server-sent events: from its start, then live.", self.stream, str,
                content_type="text/event-stream", stream=True, errors=(404, 409, 503),
            ),
            row(
                "eraseCaller", "POST", "/internal/v1/erasures",
                "Erase all that there is of one caller.", self.erase, ErasureAnswer,
                body=EraseBody, scope="privacy:rw", timeout=600.0, errors=(409, 422, 507),
            ),
            row(
                "listErasures", "GET", "/internal/v1/erasures",
                "That data was erased, the newest first; not whose.", self.erasures,
                ErasuresAnswer, query=PageQuery, scope="privacy:ro", errors=(422,),
            ),
        ]  # fmt: skip
