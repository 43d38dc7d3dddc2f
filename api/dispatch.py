"""From a request, over HTTP or /ws, to an answer: the one way that all operations go.

match → authenticate → scope → rate → idempotency → decode → handler → encode
"""

from __future__ import annotations

import itertools
import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import trio

from api.auth import ANONYMOUS, Authenticator, Identity
from api.errors import ApiError, Surface, from_exception, surface_of
from api.idempotency import Idempotency
from api.operation import Answer, Call, FileAnswer, Nothing, Operation, Table
from api.rate import Rates
from config.model import Limits
from supervisor.log import logger

Headers = list[tuple[bytes, bytes]]

# A body that takes longer to decode than most requests take in all, in bytes.
LARGE = 256 * 1024

_JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Request:
    """What is common to a request over HTTP and one over /ws."""

    method: str
    path: str
    query: bytes
    body: bytes
    address: str
    token: str | None
    key: str | None = None
    request_id: str | None = None
    last_event_id: str | None = None
    range: str | None = None
    if_range: str | None = None
    if_none_match: str | None = None
    # Over a socket the token was looked at when it opened.
    identity: Identity | None = None


@dataclass(slots=True)
class Response:
    """Status, headers and body, complete."""

    status: int
    headers: Headers
    body: bytes
    # Sent instead of the body.
    file: FileAnswer | None = None


class Dispatcher:
    """Holds what every request needs; one for the appliance."""

    def __init__(
        self,
        table: Table,
        authenticator: Authenticator,
        idempotency: Idempotency,
        limits: Callable[[], Limits],
        boot: int,
    ) -> None:
        self.table = table
        self.authenticator = authenticator
        self.limits = limits
        self._idempotency = idempotency
        self._ids = (f"{boot:x}-{n:x}" for n in itertools.count(1))
        self._rates = Rates(limits().requests_per_minute)
        self._decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
        self.requests = 0

    def new_id(self) -> str:
        """A request's id: the boot and a number."""
        return next(self._ids)

    # -- the way of a request -------------------------------------------------

    async def run(self, request: Request) -> Response:
        """Answer a request. Never raises, except for cancellation."""
        self.requests += 1
        operation, params, methods = self.table.find(request.method, request.path)
        surface = operation.surface if operation is not None else surface_of(request.path)
        request_id = request.request_id or self.new_id()
        common: Headers = [(b"x-request-id", request_id.encode())]
        try:
            verdict = self._rate(request.address)
            if verdict is not None:
                common += verdict.headers()
                if not verdict.allowed:
                    raise ApiError(429, "rate_limited", "too many requests from this address")
            if operation is None:
                raise no_operation(request.method, request.path, methods)
            caller = self.admit(operation, request)
            if operation.stream:
                raise ApiError(
                    409, "conflict", "this is a stream: GET it over HTTP, or listen on /ws"
                )
            if operation.files:
                return await self._file(operation, request, params, caller, common)
            status, headers, body = await self._perform(
                operation, request, params, caller, request_id
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            return self._failed(error, surface, request, request_id, common)
        if request.method != "GET":
            logger.info(
                "request",
                request_id=request_id,
                method=request.method,
                path=request.path,
                status=status,
                caller=caller.name,
            )
        return Response(status, [*headers, *common], body)

    def admit(self, operation: Operation, request: Request) -> Identity:
        """Who it is, if the operation allows it. Raises ApiError 401 or 403."""
        if operation.scope is None:
            return ANONYMOUS
        identity = request.identity or self.authenticator.identify(request.token)
        if identity is None or identity is ANONYMOUS:
            if self.authenticator.is_open(operation.surface.name) and not request.token:
                return ANONYMOUS
            raise unauthorized(request.token)
        if not identity.allows(operation.scope):
            raise ApiError(
                403, "forbidden", f"token {identity.name!r} lacks the scope {operation.scope}"
            )
        return identity

    async def _perform(
        self,
        operation: Operation,
        request: Request,
        params: dict[str, str],
        caller: Identity,
        request_id: str,
    ) -> tuple[int, Headers, bytes]:
        call: Call[Any, Any] = Call(
            decode_query(operation, request.query),
            await self._decoded(operation, request.body),
            params,
            caller.name,
            request_id,
            caller,
            request.key,
            {"if-none-match": request.if_none_match} if request.if_none_match else {},
        )
        if request.key is None or not operation.creates:
            return await self._handle(operation, call)

        async def run() -> tuple[int, bytes]:
            status, _headers, body = await self._handle(operation, call)
            return status, body

        place = (caller.name, operation.id, request.key)
        (status, body), again = await self._idempotency.once(place, request.body, run)
        headers = [_JSON]
        if again:
            headers.append((b"idempotent-replayed", b"true"))
        return status, headers, body

    async def _file(
        self,
        operation: Operation,
        request: Request,
        params: dict[str, str],
        caller: Identity,
        common: Headers,
    ) -> Response:
        if request.identity is not None:
            raise ApiError(409, "conflict", "files are fetched over HTTP, not over a socket")
        call: Call[Any, Any] = Call(_NOTHING, _NOTHING, params, caller.name, "", caller)
        answer = await operation.handler(call)
        if isinstance(answer, FileAnswer):
            return Response(200, common, b"", answer)
        headers = [(b"content-type", answer.content_type.encode())]
        headers += [(k.lower().encode(), v.encode()) for k, v in answer.headers]
        return Response(answer.status, [*headers, *common], answer.body)

    async def _handle(
        self, operation: Operation, call: Call[Any, Any]
    ) -> tuple[int, Headers, bytes]:
        answer = await operation.handler(call)
        if type(answer) is not Answer:
            return 200, [_JSON], _encode(answer)
        body = answer.body if isinstance(answer.body, bytes) else _encode(answer.body)
        headers = [(b"content-type", answer.content_type.encode())] if body else []
        headers += [(k.lower().encode(), v.encode()) for k, v in answer.headers]
        return answer.status, headers, body

    def _failed(
        self,
        error: Exception,
        surface: Surface,
        request: Request,
        request_id: str,
        common: Headers,
    ) -> Response:
        known = from_exception(error)
        if known is None:
            logger.error(
                "request_failed",
                request_id=request_id,
                method=request.method,
                path=request.path,
                exc_info=error,
            )
            known = ApiError(500, "internal", f"an internal error; see the log for {request_id}")
        elif known.status >= 500 or request.method != "GET":
            logger.warning(
                "request_refused",
                request_id=request_id,
                method=request.method,
                path=request.path,
                status=known.status,
                code=known.code,
                error=known.message,
            )
        echo(surface, request.body, known)
        body = surface.body(known)
        headers = [*error_headers(known, empty=not body), *common]
        return Response(surface.status(known), headers, body)

    # -- parts ----------------------------------------------------------------

    def _rate(self, address: str) -> Any:
        limits = self.limits()
        if is_loopback(address) and not limits.rate_limit_loopback:
            return None
        self._rates.per_minute = limits.requests_per_minute
        return self._rates.take(address, trio.current_time())

    def check_rate(self, address: str) -> None:
        """Count what is no operation (a stream that opens). Raises ApiError 429."""
        verdict = self._rate(address)
        if verdict is not None and not verdict.allowed:
            headers = {k.decode(): v.decode() for k, v in verdict.headers()}
            raise ApiError(
                429, "rate_limited", "too many requests from this address", None, headers
            )

    async def _decoded(self, operation: Operation, body: bytes) -> Any:
        if len(body) <= LARGE:
            return self._decode_body(operation, body)
        # Others get their turn while it is looked through.
        return await trio.to_thread.run_sync(self._decode_body, operation, body)

    def _decode_body(self, operation: Operation, body: bytes) -> Any:
        if operation.body is Nothing:
            return Nothing()
        decoder = self._decoders.get(operation.body)
        if decoder is None:
            decoder = self._decoders[operation.body] = msgspec.json.Decoder(operation.body)
        status = operation.body_status
        if not body and operation.optional_body:
            body = b"{}"
        try:
            if not operation.own_depth:
                check_depth(body, self.limits().json_depth)
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            raise ApiError(status, "invalid", str(error)) from error
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise ApiError(status, "invalid", f"the body is no usable JSON: {error}") from error


def echo(surface: Surface, body: bytes, error: ApiError) -> None:
    """Put what a surface's errors repeat of the request into the error, where it can be read."""
    if not surface.echo or not body:
        return
    try:
        sent = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        for name in surface.echo:
            if name in sent:
                error.details.setdefault(name, msgspec.json.decode(sent[name], type=str)[:100])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return  # what cannot be read is not repeated


def decode_query(operation: Operation, query: bytes) -> Any:
    """The query string as the operation's type. Raises ApiError."""
    if operation.query is Nothing:
        return _NOTHING
    try:
        pairs = urllib.parse.parse_qsl(
            query.decode("ascii"), keep_blank_values=True, max_num_fields=64, errors="strict"
        )
        return msgspec.convert(dict(pairs), operation.query, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise ApiError(operation.query_status, "invalid", f"query: {error}") from error


_NOTHING = Nothing()


# A text in JSON, in which brackets are none.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def check_depth(body: bytes, limit: int) -> None:
    """Refuse JSON nested deeper than `limit`. Raises ApiError."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return  # cannot be deeper than it has brackets
    # What is left when texts and all but brackets are taken away; then pair after pair.
    left = brackets = _TEXT.sub(b"", body).translate(None, _NO_BRACKETS)
    for _ in range(limit):
        left = left.replace(b"{}", b"").replace(b"[]", b"")
        if not left:
            return
    steps = (1 if byte in b"[{" else -1 for byte in brackets)
    if max(itertools.accumulate(steps), default=0) > limit:
        raise ApiError(422, "invalid", f"the body is nested deeper than {limit} levels")
    # Else it is no JSON: the decoder says so.


def no_operation(method: str, path: str, methods: set[str]) -> ApiError:
    """404 or 405."""
    if not methods:
        return ApiError(404, "not_found", f"there is no {path[:200]}")
    allow = ", ".join(sorted(methods))
    return ApiError(
        405, "method_not_allowed", f"{method[:20]} is not for this path", headers={"Allow": allow}
    )


def unauthorized(token: str | None) -> ApiError:
    """401, with what to send."""
    what = "this token is not known" if token else "a token is needed"
    return ApiError(
        401,
        "unauthorized",
        f"{what}: send `Authorization: Bearer TOKEN` or `X-API-Key: TOKEN`",
        headers={"WWW-Authenticate": 'Bearer realm="switchboard"'},
    )


def error_headers(error: ApiError, *, empty: bool = False) -> Headers:
    """Of an error's answer, with a body or without."""
    return [
        *([] if empty else [_JSON]),
        *((k.lower().encode(), v.encode()) for k, v in error.headers.items()),
    ]


def is_loopback(address: str) -> bool:
    """Is it this machine that asks?"""
    return address.startswith("127.") or address in ("::1", "<local>", "::ffff:127.0.0.1")
