"""The control connection to a browser: commands with answers, and events of known types.

Chrome DevTools Protocol with flat sessions. What lives here knows nothing of pages; the types of
the events are in protocol.py, what to do about them in visit.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

import msgspec
import trio
from trio_websocket import (
    ConnectionClosed,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from supervisor.log import logger

CONNECT_TIMEOUT = 10.0
COMMAND_TIMEOUT = 10.0
# One that takes nothing from us for so long reads no more.
SEND_TIMEOUT = 10.0
CHUNK = 65536
# A single console message of a page may hold megabytes; more than this ends the connection.
MAX_MESSAGE = 16 * 1024 * 1024

R = TypeVar("R")
Params = Mapping[str, object]

_encode = msgspec.json.Encoder().encode


class DevToolsLost(Exception):
    """The connection is of no use any more; the message says why."""


class CommandFailed(Exception):
    """The browser answered with an error."""


class NoAnswer(CommandFailed):
    """It did not answer in time."""


class _Error(msgspec.Struct):
    message: str = ""


class _Incoming(msgspec.Struct, rename="camel"):
    id: int = 0
    method: str = ""
    session_id: str = ""
    params: msgspec.Raw = msgspec.Raw(b"{}")
    result: msgspec.Raw = msgspec.Raw(b"{}")
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Incoming).decode


class _Waiting:
    def __init__(self) -> None:
        self.event = trio.Event()
        self.answer: _Incoming | None = None


# Called with the session (empty: the browser itself), the event's name and its raw parameters.
OnEvent = Callable[[str, str, msgspec.Raw], Awaitable[None]]


class DevTools:
    """One connection. `run` reads it to its end; commands may overlap."""

    def __init__(
        self, stream: trio.SocketStream, connection: WebSocketConnection, on_event: OnEvent
    ) -> None:
        self._stream = stream
        self._connection = connection
        self._on_event = on_event
        self._ids = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._lost: str | None = None
        # When it last said anything, by trio's clock.
        self.heard = 0.0

    @classmethod
    async def connect(
        cls, nursery: trio.Nursery, port: int, resource: str, on_event: OnEvent
    ) -> DevTools:
        """To the browser's own target. Raises DevToolsLost."""
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                try:
                    # No Origin is sent: the browser takes that, and none that a page would send.
                    connection = await wrap_client_stream(
                        nursery,
                        stream,
                        f"127.0.0.1:{port}",
                        resource,
                        max_message_size=MAX_MESSAGE,
                        receive_buffer_size=CHUNK,
                    )
                except BaseException:
                    await trio.aclose_forcefully(stream)
                    raise
        except (OSError, HandshakeError, ConnectionClosed, trio.TooSlowError) as error:
            raise DevToolsLost(f"its control connection cannot be opened: {error!r}") from error
        return cls(stream, connection, on_event)

    async def run(self) -> None:
        """Read answers and events. Always raises DevToolsLost in the end."""
        try:
            while True:
                message = _decode(await self._connection.get_message())
                self.heard = trio.current_time()
                if message.id:
                    waiting = self._waiting.pop(message.id, None)
                    if waiting is not None:
                        waiting.answer = message
                        waiting.event.set()
                    elif message.error is not None:
                        # To a `post`: a request that the page gave up meanwhile, for example.
                        logger.debug("devtools_refused", reason=message.error.message)
                else:
                    await self._on_event(message.session_id, message.method, message.params)
        except ConnectionClosed as error:
            raise self._fail(_why(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._fail(f"its control connection said what cannot be read: {error}") from error
        finally:
            self._fail("its control connection was closed")

    def _fail(self, reason: str) -> DevToolsLost:
        if self._lost is None:
            self._lost = reason
            waiting, self._waiting = self._waiting, {}
            for one in waiting.values():
                one.event.set()
        return DevToolsLost(self._lost)

    async def post(self, method: str, params: Params, session: str = "") -> None:
        """Send a command whose answer nobody waits for. Raises DevToolsLost."""
        await self._send(next(self._ids), method, params, session)

    async def _send(self, number: int, method: str, params: Params, session: str) -> None:
        if self._lost is not None:
            raise DevToolsLost(self._lost)
        message: dict[str, object] = {"id": number, "method": method, "params": dict(params)}
        if session:
            message["sessionId"] = session
        try:
            with trio.fail_after(SEND_TIMEOUT):
                await self._connection.send_message(_encode(message).decode())
        except ConnectionClosed as error:
            raise self._fail(_why(error)) from error
        except trio.TooSlowError as error:
            raise self._fail("the browser reads no commands") from error

    async def command(
        self,
        method: str,
        answer: type[R],
        params: Params = MappingProxyType({}),
        session: str = "",
        timeout: float = COMMAND_TIMEOUT,
    ) -> R:
        """Send a command and wait for its answer. Raises CommandFailed, DevToolsLost."""
        number = next(self._ids)
        waiting = self._waiting[number] = _Waiting()
        try:
            await self._send(number, method, params, session)
            with trio.move_on_after(timeout):
                await waiting.event.wait()
        finally:
            self._waiting.pop(number, None)
        if waiting.answer is None:
            if self._lost is not None:
                raise DevToolsLost(self._lost)
            raise NoAnswer(f"no answer to {method} within {timeout:g} s")
        if waiting.answer.error is not None:
            raise CommandFailed(f"{method}: {waiting.answer.error.message}")
        return msgspec.json.decode(waiting.answer.result, type=answer)

    async def close(self) -> None:
        """Close it, without a word: the browser has ended."""
        await trio.aclose_forcefully(self._stream)


def _why(error: ConnectionClosed) -> str:
    code = error.reason.code if error.reason is not None else None
    if code == 1009:
        return f"the page said more than {MAX_MESSAGE >> 20} MiB at once"
    return "the browser closed its control connection"
