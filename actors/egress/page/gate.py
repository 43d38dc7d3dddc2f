"""The only way of a page to the network: SOCKS proxies that let through what is allowed.

DevTools asks about every request (visit.py), but not about WebSockets, and not about what the
browser wants for itself. So all connections come here, by name and port, to one of two listeners:

- `port`: to where a request was let through, and nowhere else. The browser often connects before
  it asks about the request that it connects for, so others wait a moment for that.
- `websocket_port`: also to where the allow list takes the address of a WebSocket.

Names are resolved here, so what a name leads to can be asked about too. Media of WebRTC goes round
it over UDP; over TCP it does not get through.

SOCKS version 5, RFC 1928: no authentication, CONNECT only.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from urllib.parse import urlsplit

import trio

HELLO_TIMEOUT = 10.0
CONNECT_TIMEOUT = 30.0
MAX_CONNECTIONS = 256
# A connection may come so much before the request that it is for.
EARLY = 1.0
# Of where connections went; the oldest are forgotten, and then asked about again.
MAX_KNOWN = 4096
CHUNK = 65536

_Where = tuple[str, int]
_Takes = Callable[[_Where], Awaitable[bool]]

_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}

_GRANTED, _FAILED, _FORBIDDEN, _UNREACHABLE, _REFUSED, _UNSUPPORTED = 0, 1, 2, 4, 5, 7


class _NotSocks(Exception):
    """Whoever connected speaks something else."""


class Gate:
    """Two listeners on this machine, for one browser."""

    def __init__(
        self,
        allowed: Callable[[str], bool],
        blocked: Callable[[str], None],
        reaches: Callable[[str, str], bool] = lambda _host, _address: True,
    ) -> None:
        """`reaches` is asked with a host and the address that it turned out to have."""
        self._allowed = allowed
        self._blocked = blocked
        self._reaches = reaches
        # To where requests were let through.
        self._known: dict[_Where, str] = {}
        self._early: dict[_Where, trio.Event] = {}
        self._failures: dict[_Where, str] = {}
        self._open = 0
        self.port = 0
        self.websocket_port = 0
        # The browser's own control, on this machine.
        self.forbidden_port = 0

    def admits(self, url: str) -> bool:
        """May this address be fetched? If so, connections to its host are let through."""
        where = _where(url)
        if where is None or not self._allowed(url):
            return False
        _remember(self._known, where, "")
        if where in self._early:
            self._early.pop(where).set()
        return True

    def why(self, url: str) -> str | None:
        """Why the last connection to the host of an address failed, in words."""
        where = _where(url)
        return self._failures.get(where) if where else None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        (requests,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        (websockets,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = requests.socket.getsockname()[1]
        self.websocket_port = websockets.socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                trio.serve_listeners, partial(self._serve, self._takes_request), [requests]
            )
            nursery.start_soon(
                trio.serve_listeners, partial(self._serve, self._takes_websocket), [websockets]
            )
            task_status.started()

    async def _serve(self, takes: _Takes, client: trio.SocketStream) -> None:
        if self._open >= MAX_CONNECTIONS:
            await trio.aclose_forcefully(client)
            return
        self._open += 1
        try:
            async with client:
                with trio.fail_after(HELLO_TIMEOUT):
                    host, port = await _hello(client)
                where = (host.lower(), port)
                server, code = None, _FORBIDDEN
                if await takes(where):
                    server, code = await self._connect(where)
                if server is None:
                    await client.send_all(_reply(code))
                    return
                async with server:
                    await client.send_all(_reply(code))
                    await _both_ways(client, server)
        except (_NotSocks, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            # The browser's or the server's business; both see that it is closed.
            return
        finally:
            self._open -= 1

    async def _connect(self, where: _Where) -> tuple[trio.SocketStream | None, int]:
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                server = await trio.open_tcp_stream(*where)
        except (OSError, UnicodeError, trio.TooSlowError) as error:
            words, code = _words(error)
            _remember(self._failures, where, words)
            return None, code
        address = server.socket.getpeername()[0]
        own_control = where[1] == self.forbidden_port and ipaddress.ip_address(address).is_loopback
        if own_control or not self._reaches(where[0], address):
            # Nothing was said to it.
            await trio.aclose_forcefully(server)
            _remember(self._failures, where, f"its address {address} is not allowed")
            return None, _FORBIDDEN
        self._failures.pop(where, None)
        return server, _GRANTED

    async def _takes_request(self, where: _Where) -> bool:
        if where not in self._known:
            with trio.move_on_after(EARLY):
                await self._early.setdefault(where, trio.Event()).wait()
        return where in self._known

    async def _takes_websocket(self, where: _Where) -> bool:
        addresses = _addresses(*where)
        if where in self._known or any(self._allowed(url) for url in addresses):
            return True
        self._blocked(addresses[0])
        return False


async def _hello(client: trio.SocketStream) -> tuple[str, int]:
    """Where the browser wants to go. Raises _NotSocks."""
    exactly = partial(_exactly, client)
    version, methods = await exactly(2)
    if version != 5:
        raise _NotSocks
    await exactly(methods)
    await client.send_all(b"\x05\x00")
    version, command, _, kind = await exactly(4)
    match kind:
        case 1:
            host = str(ipaddress.IPv4Address(await exactly(4)))
        case 3:
            (length,) = await exactly(1)
            host = (await exactly(length)).decode("ascii", "replace")
        case 4:
            host = str(ipaddress.IPv6Address(await exactly(16)))
        case _:
            raise _NotSocks
    (port,) = struct.unpack(">H", await exactly(2))
    if version != 5 or command != 1:
        await client.send_all(_reply(_UNSUPPORTED))
        raise _NotSocks
    return host, port


async def _exactly(client: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await client.receive_some(count - len(data))
        if not more:
            raise _NotSocks
        data += more
    return data


def _reply(code: int) -> bytes:
    return bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0])


async def _both_ways(one: trio.SocketStream, other: trio.SocketStream) -> None:
    async with trio.open_nursery() as nursery:

        async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
            try:
                while data := await source.receive_some(CHUNK):
                    await sink.send_all(data)
                await sink.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                nursery.cancel_scope.cancel()

        nursery.start_soon(copy, one, other)
        nursery.start_soon(copy, other, one)


def _where(url: str) -> _Where | None:
    """Host and port of an address that goes to the network."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port else None


def _addresses(host: str, port: int) -> list[str]:
    """What a WebSocket to there may have for an address."""
    name = f"[{host}]" if ":" in host else host
    match port:
        case 80:
            return [f"ws://{name}/"]
        case 443:
            return [f"wss://{name}/"]
        case _:
            return [f"wss://{name}:{port}/", f"ws://{name}:{port}/"]


def _remember(into: dict[_Where, str], where: _Where, words: str) -> None:
    into.pop(where, None)
    into[where] = words
    if len(into) > MAX_KNOWN:
        del into[next(iter(into))]


def _words(error: BaseException) -> _Where:
    """Why a connection failed, and how SOCKS says it."""
    if isinstance(error, trio.TooSlowError):
        return f"it did not answer within {CONNECT_TIMEOUT:g} s", _UNREACHABLE
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror | UnicodeError):
            return "its name is not known", _UNREACHABLE
        if isinstance(cause, ConnectionRefusedError):
            return "it refused the connection", _REFUSED
        if isinstance(cause, OSError) and cause.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return "it cannot be reached", _UNREACHABLE
    return f"the connection failed: {error}", _FAILED


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What an error of `open_tcp_stream` is made of."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _causes(one)
        return
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)
    yield error
