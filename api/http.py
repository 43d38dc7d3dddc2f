"""One HTTP request: read within the limits, dispatch, answer.

Takes the place of quart's own connection class: an operation needs none of quart's request,
response and context machinery, which is a third of what a request costs. What is no operation
(the documentation pages) goes on to quart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from quart_trio.asgi import TrioASGIHTTPConnection

from api.auth import bearer
from api.dispatch import Headers, Request, Response, error_headers
from api.errors import ApiError, surface_of
from api.files import send_file
from supervisor.log import logger

if TYPE_CHECKING:
    from api.app import App

# After refusing a body, this much of it is read and dropped, so that the client sees the answer
# and not a reset connection.
DRAIN_BYTES = 8 * 1024 * 1024
DRAIN_TIME = 2.0

Receive = Any
Send = Any


class HttpConnection(TrioASGIHTTPConnection):
    """quart's `asgi_http_class`."""

    app: App

    async def __call__(self, receive: Receive, send: Send) -> None:
        """Serve one request of an ASGI connection."""
        scope: Any = self.scope
        path: str = scope["path"]
        if path in self.app.quart_paths and scope["method"] in ("GET", "HEAD"):
            await super().__call__(receive, send)
            return
        try:
            request = await self._read(scope, path, receive)
        except ApiError as error:
            await self._refuse(scope, path, error, receive, send)
            return
        dispatcher = self.app.dispatcher
        operation = dispatcher.table.find(request.method, path)[0]
        head = scope["method"] == "HEAD"
        if operation is not None and operation.stream and request.method == "GET":
            await self.app.streams.serve_sse(request, operation, receive, send, head)
            return
        timeout = operation.timeout if operation is not None else None
        with trio.move_on_after(timeout or dispatcher.limits().request_timeout) as deadline:
            response = await dispatcher.run(request)
        if deadline.cancelled_caught:
            late = ApiError(504, "timeout", "the request took too long; it may still be done")
            response = Response(504, error_headers(late), surface_of(path).body(late))
        if response.file is not None:
            await send_file(receive, send, response, request, head)
            return
        await _send(send, response, head)

    async def _read(self, scope: Any, path: str, receive: Receive) -> Request:
        limits = self.app.dispatcher.limits()
        token = key = request_id = last_event_id = None
        wanted: dict[bytes, str] = {}
        length = 0
        size = len(scope["raw_path"]) + len(scope["query_string"])
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"authorization":
                token = bearer(value.decode("latin-1")) or token
            elif name == b"x-api-key":
                token = token or value.decode("latin-1")
            elif name == b"idempotency-key":
                key = value.decode("latin-1")
            elif name == b"x-request-id":
                request_id = _request_id(value)
            elif name == b"last-event-id":
                last_event_id = value.decode("latin-1")
            elif name in (b"range", b"if-range", b"if-none-match"):
                wanted[name] = value.decode("latin-1").strip()
            elif name == b"content-length":
                length = int(value) if value.isdigit() else 0
        if size > limits.header:
            # h11 counts only what it has to wait for: what comes at once is counted here.
            raise ApiError(431, "too_large", f"the head is larger than {limits.header} bytes")
        most = self._most(scope["method"], path)
        if length > most:
            raise too_large(most)
        client = scope["client"]
        request = Request(
            method="GET" if scope["method"] == "HEAD" else scope["method"],
            path=path,
            query=scope["query_string"],
            body=b"",
            address=client[0] if client else "<local>",
            token=token,
            key=key,
            request_id=request_id,
            last_event_id=last_event_id,
            range=wanted.get(b"range"),
            if_range=wanted.get(b"if-range"),
            if_none_match=wanted.get(b"if-none-match"),
        )
        if scope["method"] not in ("GET", "HEAD"):
            request.body = await _body(receive, most, limits.read_timeout)
        return request

    def _most(self, method: str, path: str) -> int:
        """The largest body that is read."""
        dispatcher = self.app.dispatcher
        operation = dispatcher.table.find(method, path)[0]
        if operation is not None and operation.body_limit is not None:
            return operation.body_limit()
        return dispatcher.limits().body

    async def _refuse(
        self, scope: Any, path: str, error: ApiError, receive: Receive, send: Send
    ) -> None:
        """Answer before the body is read, then read a little of it."""
        headers: Headers = [*error_headers(error), (b"connection", b"close")]
        response = Response(error.status, headers, surface_of(path).body(error))
        logger.warning(
            "request_refused",
            method=scope["method"],
            path=path,
            status=error.status,
            code=error.code,
        )
        await _send(send, response, head=False, more=True)
        if error.status in (413, 431):
            await _drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    dropped = 0
    with trio.move_on_after(DRAIN_TIME):
        while dropped < DRAIN_BYTES:
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
            dropped += len(message["body"])


async def _body(receive: Receive, limit: int, timeout: float) -> bytes:
    """The whole body. Raises ApiError 413 or 408."""
    with trio.move_on_after(timeout):
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            return bytes(message["body"])
        pieces = bytearray()
        while message["type"] == "http.request":
            pieces += message["body"]
            if len(pieces) > limit:
                raise too_large(limit)
            if not message.get("more_body"):
                return bytes(pieces)
            message = await receive()
        raise ApiError(400, "incomplete", "the body did not come to its end")
    raise ApiError(408, "timeout", f"the body did not come within {timeout:g} s")


def too_large(limit: int) -> ApiError:
    """413."""
    return ApiError(413, "too_large", f"the body is larger than {limit} bytes")


def _request_id(value: bytes) -> str | None:
    """A client's own id, when it is one that can be logged and sent back as it is."""
    text = value.decode("latin-1")
    return text if 0 < len(text) <= 64 and text.isascii() and text.isprintable() else None


async def _send(send: Send, response: Response, head: bool, more: bool = False) -> None:
    headers = [*response.headers, (b"content-length", b"%d" % len(response.body))]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    body = b"" if head else response.body
    await send({"type": "http.response.body", "body": body, "more_body": more})
