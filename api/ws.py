"""/ws: events out, commands in, on one socket.

A client gets `hello`, then events as they come, and `heartbeat` every 30 s. It may send
`{"id","method","path","body"}` and gets `{"id","status","body"}`; many may be under way at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from quart_trio.asgi import TrioASGIWebsocketConnection

from api.auth import ANONYMOUS, bearer
from api.dispatch import Request, error_headers, unauthorized
from api.errors import SYSTEM, ApiError
from api.streams import SCOPE, Frame, Place, Wanted, wanted

if TYPE_CHECKING:
    from api.app import App

# WebSocket close codes, RFC 6455 §7.4.1.
GOING_AWAY = 1001
POLICY_VIOLATION = 1008


class Command(msgspec.Struct):
    """What a client may send: an operation, as a path with its query, and a body."""

    id: str | int
    method: str
    path: str
    body: msgspec.Raw = msgspec.Raw(b"")
    idempotency_key: str | None = None


_decode = msgspec.json.Decoder(Command).decode


class WebSocketConnection(TrioASGIWebsocketConnection):
    """quart's `asgi_websocket_class`: it has no buffer that a silent reader could fill."""

    app: App

    async def __call__(self, receive: Any, send: Any) -> None:
        """Serve one WebSocket."""
        scope: Any = self.scope
        await receive()  # websocket.connect
        request = _handshake(scope)
        streams = self.app.streams
        try:
            if scope["path"] != "/ws":
                raise ApiError(404, "not_found", "the WebSocket is at /ws")
            self.app.dispatcher.check_rate(request.address)
            want = wanted(scope["query_string"])
            events = self._admit(request, want)
            reader = streams.open(want)
        except ApiError as error:
            await _reject(send, error)
            return
        await send({"type": "websocket.accept", "headers": []})
        streams.subscribers += 1
        lock = trio.Lock()

        async def write(frame: Frame) -> None:
            async with lock:
                made = frame if isinstance(frame, bytes) else frame()
                await send({"type": "websocket.send", "text": made.decode()})

        try:
            async with trio.open_nursery() as nursery:
                await write(streams.hello(reader, want.topics))
                place = Place(reader)
                nursery.start_soon(streams.beats, place, write)
                if events:
                    nursery.start_soon(streams.frames, place, want.batch, write)

                async def close_when(
                    over: Callable[[], Awaitable[None]], code: int, reason: str
                ) -> None:
                    await over()
                    async with lock:
                        await send({"type": "websocket.close", "code": code, "reason": reason})
                    nursery.cancel_scope.cancel()

                stopping, revoked = streams.stopping.wait, streams.revoked(request, want)
                nursery.start_soon(close_when, stopping, GOING_AWAY, "the appliance stops")
                nursery.start_soon(close_when, revoked, POLICY_VIOLATION, "the token has changed")

                async def written() -> None:
                    async with lock:
                        return

                await self._read(receive, request, write, written, nursery)
                nursery.cancel_scope.cancel()
        finally:
            streams.subscribers -= 1

    def _admit(self, request: Request, want: Wanted) -> bool:
        """May it listen? A token without events:ro may still send commands (and hears nothing)."""
        authenticator = self.app.dispatcher.authenticator
        token = request.token or want.token
        identity = authenticator.identify(token)
        if identity is None:
            if token or not authenticator.is_open("events"):
                raise unauthorized(token)
            # Nobody in particular, but over a socket: some operations go over HTTP alone.
            request.identity = ANONYMOUS
            return True
        request.identity = identity
        return identity.allows(SCOPE)

    # -- commands -------------------------------------------------------------

    async def _read(
        self, receive: Any, opened: Request, write: Any, written: Any, nursery: trio.Nursery
    ) -> None:
        """Take commands until the client goes. Past the limit it waits, and so does the client."""
        slots = trio.Semaphore(self.app.dispatcher.limits().in_flight_per_socket)
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            # From a client that does not take its answers no more is taken: they are in memory.
            await written()
            text = message.get("text")
            if text is None:
                await write(_problem(None, 400, "commands are text frames of JSON"))
                continue
            await slots.acquire()
            nursery.start_soon(self._answer, text, opened, write, slots)

    async def _answer(self, text: str, opened: Request, write: Any, slots: trio.Semaphore) -> None:
        # The slot is held until the answer is written: a client that reads none gets no more.
        try:
            await write(await self._perform(text, opened))
        finally:
            slots.release()

    async def _perform(self, text: str, opened: Request) -> bytes:
        try:
            command = _decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            return _problem(_id_of(text), 400, f"not a command: {error}")
        path, _, query = command.path.partition("?")
        body = bytes(command.body)
        request = Request(
            command.method.upper(),
            path,
            query.encode("utf-8", "replace"),
            b"" if body == b"null" else body,
            opened.address,
            opened.token,
            command.idempotency_key,
            identity=opened.identity,
        )
        dispatcher = self.app.dispatcher
        operation = dispatcher.table.find(request.method, path)[0]
        timeout = operation.timeout if operation is not None else None
        with trio.move_on_after(timeout or dispatcher.limits().request_timeout) as deadline:
            answer = await dispatcher.run(request)
        if deadline.cancelled_caught:
            return _problem(command.id, 504, "it took too long; it may still be done")
        is_json = (b"content-type", b"application/json") in answer.headers
        shown = answer.body if is_json else msgspec.json.encode(answer.body.decode("utf-8"))
        return b'{"id":%s,"status":%d,"body":%s}' % (
            msgspec.json.encode(command.id),
            answer.status,
            shown,
        )


def _handshake(scope: Any) -> Request:
    token = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            token = bearer(value.decode("latin-1")) or token
        elif name == b"x-api-key":
            token = token or value.decode("latin-1")
    client = scope["client"]
    address = client[0] if client else "<local>"
    return Request("GET", scope["path"], scope["query_string"], b"", address, token)


def _problem(id: str | int | None, status: int, message: str) -> bytes:
    code = "timeout" if status == 504 else "invalid"
    body = SYSTEM.shape(ApiError(status, code, message))
    return msgspec.json.encode({"id": id, "status": status, "body": body})


def _id_of(text: str) -> str | int | None:
    """The id of something that is no command, if it has one, so that the client can tell which."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    its = found.get("id") if isinstance(found, dict) else None
    return its if isinstance(its, str | int) and not isinstance(its, bool) else None


async def _reject(send: Any, error: ApiError) -> None:
    body = SYSTEM.body(error)
    headers = [*error_headers(error), (b"content-length", b"%d" % len(body))]
    await send(
        {"type": "websocket.http.response.start", "status": error.status, "headers": headers}
    )
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
