"""The log as streams: /ws and /events read it with a cursor and send what comes.

A subscriber has no queue here. One that reads slowly falls behind in the log, is served from
memory or from the database accordingly, and holds up nobody.
"""

from __future__ import annotations

import functools
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec
import trio

from api.auth import ANONYMOUS
from api.dispatch import Dispatcher, Request, error_headers, unauthorized
from api.errors import EVENTS, ApiError, from_exception
from api.operation import Call, Nothing, Operation
from supervisor.bus import EventLog, Gap, Reader, TokenError
from supervisor.event import Event, Topics, encode, timestamp
from supervisor.log import logger
from supervisor.store import Store

HEARTBEAT = 30.0
# The most events that go into one frame with `batch=1`.
BATCH = 256
MAX_TOPICS = 64

SCOPE = "events:ro"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a subscriber asked for."""

    topics: Topics
    since: str | None
    batch: bool
    token: str | None


def wanted(query: bytes, since: str | None = None) -> Wanted:
    """From the query string: `since`, `topics` (commas), `batch`, `api_key`. Raises ApiError."""
    try:
        pairs = dict(
            urllib.parse.parse_qsl(
                query.decode("ascii"), keep_blank_values=True, max_num_fields=64, errors="strict"
            )
        )
    except ValueError as error:
        raise ApiError(400, "invalid", f"query: {error}") from error
    names = pairs.get("topics", "").split(",")
    if len(names) > MAX_TOPICS:
        raise ApiError(400, "invalid", f"topics: at most {MAX_TOPICS}")
    batch = pairs.get("batch", "0")
    if batch not in ("0", "1", "true", "false"):
        raise ApiError(400, "invalid", "batch: expected 0 or 1")
    return Wanted(
        Topics(names),
        since or pairs.get("since") or None,
        batch in ("1", "true"),
        pairs.get("api_key"),
    )


class StreamQuery(msgspec.Struct):
    """Query of a stream; `since` is a resume token, `topics` are separated by commas."""

    since: str = ""
    topics: str = ""
    api_key: str = ""


async def _only_as_a_stream(call: Call[StreamQuery, Nothing]) -> NoReturn:
    del call
    raise ApiError(409, "conflict", "/events is a stream: GET it over HTTP, or listen on /ws")


OPERATION = Operation(
    id="events",
    method="GET",
    path="/events",
    surface=EVENTS,
    scope=SCOPE,
    summary="The log as server-sent events: replay from a token, then live.",
    handler=_only_as_a_stream,
    query=StreamQuery,
    query_status=400,
    answer=str,
    content_type="text/event-stream",
    stream=True,
    errors=(409, 503),
)

Frame = bytes | Callable[[], bytes]
Send = Callable[[Frame], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Part:
    """Of the log: one topic, from the event after a number."""

    topic: str
    after: int


class Place:
    """How far a subscriber has been sent the log: behind its reader while a batch is on its way."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._sent: int | None = None
        self._untold: Gap | None = None

    @property
    def seq(self) -> int:
        """The last event that was sent, or that it did not want."""
        return self.reader.cursor if self._sent is None else self._sent

    def token(self, log: EventLog) -> str:
        """Where to resume; as it was asked for, until the gap after it has been sent."""
        if self._untold is not None:
            return self._untold.requested
        return self.reader.token if self._sent is None else log.token(self._sent)

    async def read(self) -> Gap | list[Event]:
        """The reader's next; from now on not sent."""
        found = await self.reader.read(BATCH)
        if isinstance(found, Gap):
            self._untold = found
        else:
            self._sent = found[0].seq - 1
        return found

    def sent(self, seq: int) -> None:
        """All up to this one have been sent."""
        self._sent = seq

    def all_sent(self) -> None:
        """All that was read has been sent."""
        self._sent = self._untold = None


class Streams:
    """Counts the subscribers and ends them when the appliance stops."""

    def __init__(
        self, log: EventLog, store: Store, dispatcher: Dispatcher, heartbeat: float = HEARTBEAT
    ) -> None:
        self.log = log
        self._store = store
        self._dispatcher = dispatcher
        self.heartbeat = heartbeat
        self.subscribers = 0
        self.stopping = trio.Event()

    def open(self, want: Wanted) -> Reader:
        """A reader for a new subscriber. Raises ApiError 400 or 503."""
        limit = self._dispatcher.limits().subscribers
        if self.subscribers >= limit:
            headers = {"Retry-After": "5"}
            raise ApiError(503, "too_many", f"{limit} subscribers already", headers=headers)
        try:
            return self.log.reader(want.since, want.topics, self._store)
        except TokenError as error:
            raise ApiError(400, "invalid", f"since: {error}") from error

    # -- frames ---------------------------------------------------------------

    def hello(self, reader: Reader, topics: Topics) -> bytes:
        """The first frame: which log this is, and where the subscriber stands in it."""
        return msgspec.json.encode(
            {
                "type": "hello",
                "ts": timestamp(),
                "epoch": self.log.epoch,
                "token": reader.token,
                "head": self.log.token(),
                "topics": list(topics.names),
                "heartbeat": self.heartbeat,
            }
        )

    def beat(self, place: Place) -> bytes:
        """Every 30 s: alive, and where to resume after what has been sent."""
        token, behind = place.token(self.log), self.log.head - place.seq
        return msgspec.json.encode(
            {"type": "heartbeat", "ts": timestamp(), "token": token, "behind": behind}
        )

    def gap(self, gap: Gap) -> bytes:
        """Events that the subscriber cannot have any more."""
        return msgspec.json.encode(
            {
                "type": "gap",
                "ts": timestamp(),
                "reason": gap.reason,
                "requested": gap.requested,
                "resumed_at": self.log.token(gap.first - 1),
            }
        )

    async def frames(self, place: Place, batch: bool, send: Send) -> None:
        """Send events as frames until cancelled."""
        reader = place.reader
        while True:
            found = await place.read()
            if isinstance(found, Gap):
                await send(self.gap(found))
            elif batch and len(found) > 1:
                token = reader.token.encode()
                events = b",".join([encode(event) for event in found])
                await send(b'{"type":"batch","token":"' + token + b'","events":[' + events + b"]}")
            else:
                for event in found:
                    await send(encode(event))
                    place.sent(event.seq)
            place.all_sent()

    async def beats(self, place: Place, send: Send) -> None:
        """Send heartbeats until cancelled."""
        while True:
            await trio.sleep(self.heartbeat)
            # Made when it is its turn: what is sent before it is then counted.
            await send(lambda: self.beat(place))

    # -- server-sent events ---------------------------------------------------

    async def serve_sse(
        self, request: Request, operation: Operation, receive: Any, send: Any, head: bool
    ) -> None:
        """GET /events, or the part of it that an operation streams.

        A `Last-Event-ID` header counts before `since`. `head`: that is all.
        """
        try:
            self._dispatcher.check_rate(request.address)
            want = wanted(request.query, request.last_event_id)
            self.authorize(request, want, operation)
            if operation is not OPERATION:
                want = await self._part(request, operation, want)
            reader = self.open(want)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the client gets an answer
            error = from_exception(failure)
            if error is None:
                logger.error("stream_failed", path=request.path, exc_info=failure)
                error = ApiError(500, "internal", "an internal error; see the log")
            body = operation.surface.body(error)
            headers = [
                *error_headers(error, empty=not body),
                (b"content-length", b"%d" % len(body)),
            ]
            await send(
                {
                    "type": "http.response.start",
                    "status": operation.surface.status(error),
                    "headers": headers,
                }
            )
            await send({"type": "http.response.body", "body": body, "more_body": False})
            return
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if head:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        self.subscribers += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_gone, receive, nursery)
                nursery.start_soon(self._until, self.stopping.wait, nursery)
                nursery.start_soon(self._until, self.revoked(request, want, operation), nursery)
                await self._sse(reader, want, send, nursery)
        finally:
            self.subscribers -= 1
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _part(self, request: Request, operation: Operation, want: Wanted) -> Wanted:
        """What an operation streams of the log: its handler says it."""
        _operation, params, _methods = self._dispatcher.table.find("GET", request.path)
        call: Call[Any, Any] = Call(
            Nothing(), Nothing(), params, "", "", request.identity or ANONYMOUS
        )
        part: Part = await operation.handler(call)
        since = want.since or self.log.token(part.after)
        return Wanted(Topics([part.topic]), since, want.batch, want.token)

    async def _sse(self, reader: Reader, want: Wanted, send: Any, nursery: trio.Nursery) -> None:
        lock = trio.Lock()

        async def write(make: Callable[[], bytes]) -> None:
            async with lock:
                await send({"type": "http.response.body", "body": make(), "more_body": True})

        place = Place(reader)

        async def control(made: Frame) -> None:
            def make() -> bytes:
                frame = made if isinstance(made, bytes) else made()
                kind = str(msgspec.json.decode(frame)["type"]).encode()
                return b"event: %s\ndata: %s\n\n" % (kind, frame)

            await write(make)

        async def beats() -> None:
            await self.beats(place, control)

        await control(self.hello(reader, want.topics))
        nursery.start_soon(beats)
        while True:
            found = await place.read()
            if isinstance(found, Gap):
                await control(self.gap(found))
                place.all_sent()
                continue
            epoch = self.log.epoch.encode()
            entries = [
                b"id: %s:%d\nevent: %s\ndata: %s\n\n" % (epoch, e.seq, e.type.encode(), encode(e))
                for e in found
            ]
            await write(functools.partial(b"".join, entries))
            place.all_sent()

    async def _until_gone(self, receive: Any, nursery: trio.Nursery) -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        nursery.cancel_scope.cancel()

    async def _until(self, over: Callable[[], Awaitable[None]], nursery: trio.Nursery) -> None:
        await over()
        nursery.cancel_scope.cancel()

    # -- who may --------------------------------------------------------------

    def authorize(self, request: Request, want: Wanted, operation: Operation = OPERATION) -> None:
        """The header's token or `?api_key=`. Sets the request's identity. Raises ApiError."""
        scope = operation.scope or SCOPE
        authenticator = self._dispatcher.authenticator
        token = request.token or want.token
        identity = authenticator.identify(token)
        if identity is None:
            if authenticator.is_open(operation.surface.name) and not token:
                return
            raise unauthorized(token)
        request.identity = identity
        if not identity.allows(scope):
            raise ApiError(403, "forbidden", f"token {identity.name!r} lacks the scope {scope}")

    def revoked(
        self, request: Request, want: Wanted, operation: Operation = OPERATION
    ) -> Callable[[], Awaitable[None]]:
        """To wait until the token of an open stream is not what it was when that opened."""
        authenticator = self._dispatcher.authenticator
        token = request.token or want.token

        def unchanged() -> bool:
            if token is None:
                return authenticator.is_open(operation.surface.name)
            return authenticator.identify(token) == request.identity

        async def wait() -> None:
            while unchanged():
                await authenticator.changed()

        return wait
