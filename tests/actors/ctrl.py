"""The other end of a control channel: a server that speaks baresip's ctrl_tcp, and lies on demand.

It is held to the same contract as the real one (test_control.py runs one suite against both).
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import msgspec
import trio

from actors.gateway.control import ChannelBroken, CtrlTcp
from actors.gateway.messages import Json
from actors.gateway.netstring import Decoder, encode

Answers = Callable[[Json], list[bytes]]


class FakeGateway:
    """`answer` makes raw bytes of each command heard; `say` sends what nobody asked for."""

    def __init__(self) -> None:
        self.heard: list[Json] = []
        self.events: list[Json] = []
        self.broken: str | None = None
        self.over = trio.Event()
        self.changed = trio.Event()
        self.answer: Answers = lambda command: [self.reply(command)]
        self.reading = True

    @staticmethod
    def reply(command: Json, data: str = "", *, ok: bool = True) -> bytes:
        """The answer that the real one would give."""
        message = {"response": True, "ok": ok, "data": data, "token": command["token"]}
        return encode(msgspec.json.encode(message))

    @staticmethod
    def event(kind: str, **more: object) -> bytes:
        return encode(msgspec.json.encode({"event": True, "type": kind, "class": "call", **more}))

    async def __aenter__(self) -> FakeGateway:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        port = listener.socket.getsockname()[1]
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        self.server = await listener.accept()
        await listener.aclose()
        self.channel = CtrlTcp(stream, self._on_event)
        self._nursery.start_soon(self._client)
        self._nursery.start_soon(self._serve)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)
        await trio.aclose_forcefully(self.server)

    async def say(self, data: bytes) -> None:
        await self.server.send_all(data)

    async def seen(self, count: int) -> None:
        """Wait until so many commands were heard, or so many events came."""
        while len(self.heard) < count and len(self.events) < count:
            self.changed = trio.Event()
            await self.changed.wait()

    async def _on_event(self, event: Json) -> None:
        self.events.append(event)
        self.changed.set()

    async def _client(self) -> None:
        try:
            await self.channel.run()
        except ChannelBroken as error:
            self.broken = str(error)
        self.over.set()

    async def _serve(self) -> None:
        decoder = Decoder()
        try:
            while self.reading:
                data = await self.server.receive_some(65536)
                if not data:
                    return
                for frame in decoder.feed(data):
                    command = msgspec.json.decode(frame, type=dict)
                    self.heard.append(command)
                    self.changed.set()
                    for piece in self.answer(command):
                        await self.server.send_all(piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
