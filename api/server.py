"""Listeners: accept, bound, guard, and hand each connection to hypercorn.

hypercorn shields its writes and waits for ever for a client that does not read, keeps a connection
that its client has closed until the idle time is over, and has no limit on connections. All are
mended here, mostly by what is put between it and the socket.
"""

from __future__ import annotations

import errno
import logging
import os
import ssl
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h11
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from config.check import split_address
from config.model import Limits, Server, Tls
from supervisor.errors import StartFailed
from supervisor.log import logger
from supervisor.service import Context, Service

# A connection whose socket was closed gets this long to unwind, in seconds.
UNWIND = 5.0
BACKLOG = 512
# Out of file descriptors, accepting rests for a moment.
REST = 0.1


class GuardedStream(trio.abc.HalfCloseableStream):
    """A socket stream with a deadline on each write and a way to end it from outside.

    hypercorn writes an answer's head, its body and then nothing, one after the other. The head is
    held until what follows it: one system call, and mostly one packet, instead of three writes.
    """

    def __init__(self, stream: trio.SocketStream, write_timeout: float) -> None:
        self._stream = stream
        self._write_timeout = write_timeout
        self._held = b""
        self.scope = trio.CancelScope()
        self.socket = stream.socket

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or break the connection: a client that does not read is none."""
        data, self._held = self._held + bytes(data), b""
        with trio.move_on_after(self._write_timeout) as timeout:
            await self._stream.send_all(data)
        if timeout.cancelled_caught:
            # Whoever wrote may hold what its reader waits for: nothing here unwinds by itself.
            self._unwind()
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError("the client does not read")

    def send_now(self, data: bytes) -> bool:
        """Send without waiting; False when the rest must be waited for, with `send_all(b"")`."""
        if not self._held and _is_head(data):
            self._held = data
            return True
        data = self._held + data
        try:
            sent = os.write(self.socket.fileno(), data) if data else 0
        except OSError:
            # Full, or broken: the stream waits, or says what is wrong with it.
            sent = 0
        self._held = data[sent:]
        return not self._held

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio.abc.ReceiveStream."""
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        """See trio.abc.HalfCloseableStream."""
        if self._held:
            await self.send_all(b"")
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close; what still runs for this connection has a little time left."""
        self._unwind()
        await self._stream.aclose()

    def _unwind(self) -> None:
        self.scope.deadline = min(self.scope.deadline, trio.current_time() + UNWIND)

    def abort(self) -> None:
        """End it now: also a write that hypercorn has shielded."""
        self.socket.close()
        self.scope.cancel()


class Http1(H11Protocol):
    """HTTP/1.1 and WebSocket alone: over HTTP/2, idle times and limits would be others."""

    async def _check_protocol(self, event: Any) -> None:
        """A client that offers h2c, or wants a tunnel, is answered in what it spoke.

        h11 would hold the connection until that is decided; here it is.
        """
        upgrade = dict(event.headers).get(b"upgrade", b"")
        connection = self.connection
        if upgrade.lower() != b"websocket" and isinstance(connection, h11.Connection):
            connection._cstate.pending_switch_proposals.clear()


class Connection(TCPServer):
    """hypercorn's, without its habit of outliving its client until the idle time is over.

    What the socket takes at once, as it nearly always does, goes past hypercorn's lock and shield.
    """

    async def protocol_send(self, event: Event) -> None:
        """To the client, or a change of the connection."""
        stream: object = self.stream  # declared as others than ours
        if (
            isinstance(event, RawData)
            and isinstance(stream, GuardedStream)
            and not self.send_lock.locked()
        ):
            if stream.send_now(event.data):
                return
            event = RawData(b"")
        await super().protocol_send(event)

    async def _read_data(self) -> None:
        it = self.protocol
        it.protocol = Http1(
            it.app,
            it.config,
            it.context,
            it.task_group,
            it.state,
            it.ssl,
            it.client,
            it.server,
            it.send,
        )
        await super()._read_data()
        await self.idle_task.stop()


def _is_head(data: bytes) -> bool:
    """The head of a final answer; one of 1xx is waited for as it is."""
    return data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1")


class Listeners(Service):
    """Serves an ASGI application on all configured addresses; they can change while it runs."""

    def __init__(
        self, app: Any, server: Callable[[], Server], limits: Callable[[], Limits]
    ) -> None:
        self._app = wrap_app(app, 0, "asgi")
        self._server = server
        self._limits = limits
        self._hypercorn = _hypercorn_config(limits())
        self._worker = WorkerContext(None)
        self._open: dict[str, tuple[trio.SocketListener, trio.CancelScope]] = {}
        self._streams: set[GuardedStream] = set()
        self._per_address: Counter[str] = Counter()
        self._nursery: trio.Nursery | None = None
        self._handlers: trio.Nursery | None = None
        self._gone: trio.Event | None = None
        self._tls: tuple[tuple[Tls, int, int], ssl.SSLContext] | None = None
        self.addresses: list[str] = []

    async def run(self, context: Context) -> None:
        """See Service.run."""
        async with trio.open_nursery() as handlers:
            self._handlers = handlers
            try:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    await self.apply()
                    context.ready()
                    await context.stopped()
                    nursery.cancel_scope.cancel()
            finally:
                # Also when it crashed: the next incarnation needs the addresses.
                for listener, _ in self._open.values():
                    listener.socket.close()
            await self._worker.terminated.set()
            with trio.move_on_after(self._server().grace):
                while self._streams:
                    self._gone = trio.Event()
                    await self._gone.wait()
            for stream in list(self._streams):
                stream.abort()
            handlers.cancel_scope.cancel()

    async def apply(self) -> None:
        """Open what the configuration has now and close what it has no more. Raises OSError.

        An address that is in both is not touched.
        """
        wanted, tls = self._server().bind, self._server().tls
        if tls is not None:
            tls_context(tls)  # refuses files that cannot be used before anything is changed
        self._hypercorn = _hypercorn_config(self._limits())
        opened: list[tuple[str, trio.SocketListener]] = []
        try:
            for address in [a for a in wanted if a not in self._open]:
                listener = await _listen(address)
                opened.append((address, listener))
        except OSError:
            for _, listener in opened:
                await listener.aclose()
            raise
        for address in [a for a in self._open if a not in wanted]:
            listener, scope = self._open.pop(address)
            scope.cancel()
            await listener.aclose()
        assert self._nursery is not None
        for address, listener in opened:
            scope = trio.CancelScope()
            self._open[address] = (listener, scope)
            self._nursery.start_soon(self._accept, listener, scope)
        self.addresses = [_shown(entry[0], self._server().tls) for entry in self._open.values()]
        logger.info("listening", addresses=self.addresses)

    # -- connections ----------------------------------------------------------

    async def _accept(self, listener: trio.SocketListener, scope: trio.CancelScope) -> None:
        assert self._handlers is not None
        with scope:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                        raise
                    logger.error("accept_failed", error=str(error))
                    await trio.sleep(REST)
                    continue
                self._handlers.start_soon(self._connection, stream)

    async def _connection(self, stream: trio.SocketStream) -> None:
        limits = self._limits()
        try:
            address = stream.socket.getpeername()[0]
        except OSError:
            await trio.aclose_forcefully(stream)
            return
        over = (
            len(self._streams) >= limits.connections
            or self._per_address[address] >= limits.connections_per_address
        )
        if over:
            await _turn_away(stream)
            return
        guarded = GuardedStream(stream, limits.write_timeout)
        self._streams.add(guarded)
        self._per_address[address] += 1
        try:
            with guarded.scope:
                server = Connection(
                    self._app,
                    self._hypercorn,
                    self._worker,
                    ConnectionState({}),
                    self._secured(guarded),
                )
                await server.run()
        except Exception as error:  # noqa: BLE001 - one connection must not end the others
            # Broken sockets and protocol errors of clients, which hypercorn lets through.
            logger.info("connection_broke", address=address, error=repr(error))
        finally:
            self._streams.discard(guarded)
            if self._gone is not None:
                self._gone.set()
            self._per_address[address] -= 1
            if not self._per_address[address]:
                del self._per_address[address]
            await trio.aclose_forcefully(stream)

    def _secured(self, stream: GuardedStream) -> Any:
        tls = self._server().tls
        if tls is None:
            return stream
        context = self._tls_context(tls)
        return trio.SSLStream(stream, context, server_side=True, https_compatible=True)

    def _tls_context(self, tls: Tls) -> ssl.SSLContext:
        """The context for these files as they are now: a renewed certificate needs no reload."""
        try:
            state = (tls, _changed(tls.certificate), _changed(tls.key))
            if self._tls is None or self._tls[0] != state:
                self._tls = (state, tls_context(tls))
        except OSError as error:
            if self._tls is None:
                raise
            logger.error("certificate_unusable", error=str(error))
        return self._tls[1]

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._streams)


async def check(server: Server) -> None:
    """See that it could be served so now. Raises StartFailed, in words.

    For before the tree runs: there it would be a crash, told as one, and tried again.
    """
    try:
        if server.tls is not None:
            tls_context(server.tls)
        for address in server.bind:
            await (await _listen(address)).aclose()
    except OSError as error:
        raise StartFailed(error.strerror or str(error)) from error


def tls_context(tls: Tls) -> ssl.SSLContext:
    """For a server, TLS 1.2 and later. Raises OSError for files that cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:
        what = f"cannot use {tls.certificate} with {tls.key}: {error.strerror or error}"
        raise OSError(error.errno, what) from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _changed(path: str) -> int:
    return Path(path).stat().st_mtime_ns


async def _listen(address: str) -> trio.SocketListener:
    host, port = split_address(address)
    try:
        return (await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG))[0]
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error


def _shown(listener: trio.SocketListener, tls: Tls | None) -> str:
    host, port = listener.socket.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{host}:{port}"


async def _turn_away(stream: trio.SocketStream) -> None:
    """Say 503 without reading: there is no room to do more."""
    with trio.move_on_after(1.0):
        try:
            await stream.send_all(
                b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
                b"Content-Length: 0\r\nConnection: close\r\n\r\n"
            )
            await stream.send_eof()
            # Closing with unread bytes would reset the connection under the answer.
            while await stream.receive_some(4096):
                continue
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            logger.debug("turned_away_gone", error=str(error))
    await trio.aclose_forcefully(stream)


def _hypercorn_config(limits: Limits) -> HypercornConfig:
    config = HypercornConfig()
    config.h11_max_incomplete_size = limits.header
    config.keep_alive_timeout = limits.read_timeout
    config.ssl_handshake_timeout = limits.read_timeout
    config.keep_alive_max_requests = 1_000_000_000
    config.websocket_max_message_size = limits.body
    config.include_server_header = False
    config.max_app_queue_size = 16
    # Its own logger is for its bugs only; requests are logged where they are dispatched.
    config.errorlog = logging.getLogger("hypercorn")
    config.accesslog = None
    return config
