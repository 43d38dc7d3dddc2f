"""The gate alone: who is let through to where, and what is said when nobody is there.

A client that speaks SOCKS by hand; real servers on this machine.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from actors.egress.page import gate as module
from actors.egress.page.gate import Gate

GRANTED, FORBIDDEN, UNREACHABLE, REFUSED = 0, 2, 4, 5


class Client:
    """A gate and what it asked and told."""

    def __init__(self, allowed: Callable[[str], bool]) -> None:
        self.asked: list[str] = []
        self.blocked: list[str] = []

        def asks(url: str) -> bool:
            self.asked.append(url)
            return allowed(url)

        self.gate = Gate(asks, self.blocked.append)

    async def connect(
        self, host: str, port: int, websocket: bool = False
    ) -> tuple[int, trio.SocketStream]:
        """The code of its reply, and the connection."""
        gate = self.gate.websocket_port if websocket else self.gate.port
        stream = await trio.open_tcp_stream("127.0.0.1", gate)
        await stream.send_all(b"\x05\x01\x00")
        assert await stream.receive_some(2) == b"\x05\x00"
        name = host.encode()
        request = b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", port)
        for byte in request:
            # In pieces, as a network may.
            await stream.send_all(bytes([byte]))
        reply = await stream.receive_some(10)
        assert len(reply) == 10
        return reply[1], stream

    async def code(self, host: str, port: int, websocket: bool = False) -> int:
        code, stream = await self.connect(host, port, websocket)
        await stream.aclose()
        return code


@asynccontextmanager
async def gate(allowed: Callable[[str], bool]) -> AsyncIterator[Client]:
    client = Client(allowed)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(client.gate.run)
            yield client
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A server that says what it hears, until its client has said all; its port."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send_all(data)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_to_where_a_request_was_let_through_data_goes_both_ways_to_its_end() -> None:
    async with echo() as port, gate(lambda url: url.startswith("http:")) as client:
        assert client.gate.admits(f"http://LOCALHOST:{port}/x")
        code, stream = await client.connect("localhost", port)
        assert code == GRANTED
        await stream.send_all(b"hello" * 100_000)
        await stream.send_eof()
        heard = b"".join([data async for data in stream])
        assert heard == b"hello" * 100_000
        await stream.aclose()


async def test_elsewhere_the_address_of_a_websocket_must_be_allowed() -> None:
    async with echo() as port, gate(lambda url: url.startswith("ws://localhost:")) as client:
        assert await client.code("localhost", port, websocket=True) == GRANTED
        assert await client.code("127.0.0.1", port, websocket=True) == FORBIDDEN
        assert await client.code("a.example", 443, websocket=True) == FORBIDDEN
        assert await client.code("a.example", 80, websocket=True) == FORBIDDEN
    assert client.asked[:2] == [f"wss://localhost:{port}/", f"ws://localhost:{port}/"]
    assert client.asked[-2:] == ["wss://a.example/", "ws://a.example/"]
    assert client.blocked == [f"wss://127.0.0.1:{port}/", "wss://a.example/", "ws://a.example/"]


async def test_where_no_request_went_nothing_goes_whatever_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the browser wants for itself."""
    monkeypatch.setattr(module, "EARLY", 0.0)
    async with echo() as port, gate(lambda _: True) as client:
        assert await client.code("localhost", port) == FORBIDDEN
        assert client.gate.admits(f"http://localhost:{port}/")
        assert await client.code("localhost", port) == GRANTED
        assert await client.code("127.0.0.1", port) == FORBIDDEN
    assert client.blocked == []


async def test_a_connection_may_come_before_the_request_that_it_is_for() -> None:
    async with echo() as port, gate(lambda _: True) as client, trio.open_nursery() as nursery:
        codes: list[int] = []

        async def connect() -> None:
            codes.append(await client.code("localhost", port))

        nursery.start_soon(connect)
        while not client.gate._early:
            await trio.lowlevel.checkpoint()
        assert client.gate.admits(f"http://localhost:{port}/")
    assert codes == [GRANTED]


async def test_what_is_refused_is_not_remembered_as_let_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "EARLY", 0.0)
    async with echo() as port, gate(lambda _: False) as client:
        assert not client.gate.admits(f"http://localhost:{port}/")
        assert not client.gate.admits("no address at all")
        assert await client.code("localhost", port) == FORBIDDEN


async def test_the_control_of_the_browser_is_out_of_reach_by_any_name() -> None:
    async with echo() as port, gate(lambda _: True) as client:
        client.gate.forbidden_port = port
        for host in ("127.0.0.1", "localhost", "127.0.0.2"):
            assert client.gate.admits(f"http://{host}:{port}/json")
        assert await client.code("127.0.0.1", port) == FORBIDDEN
        assert await client.code("localhost", port) == FORBIDDEN


async def test_where_a_name_leads_to_is_asked_about_before_anything_is_said() -> None:
    async with echo() as port, gate(lambda _: True) as client:
        asked: list[tuple[str, str]] = []

        def reaches(host: str, address: str) -> bool:
            asked.append((host, address))
            return host != "localhost"

        client.gate._reaches = reaches
        for host, code in (("127.0.0.1", GRANTED), ("localhost", FORBIDDEN)):
            assert client.gate.admits(f"http://{host}:{port}/")
            assert await client.code(host, port) == code
        why = client.gate.why(f"http://localhost:{port}/")
    assert why == "its address 127.0.0.1 is not allowed"
    assert asked == [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1")]


@pytest.mark.parametrize(
    ("host", "code", "words"),
    [
        ("127.0.0.1", REFUSED, "it refused the connection"),
        ("nobody.invalid", UNREACHABLE, "its name is not known"),
        ("a..b", UNREACHABLE, "its name is not known"),
    ],
)
async def test_why_nobody_is_there_is_said_in_words(host: str, code: int, words: str) -> None:
    async with gate(lambda _: True) as client:
        url = f"http://{host}:9/x"
        assert client.gate.why(url) is None
        assert client.gate.admits(url)
        assert await client.code(host, 9) == code
        assert client.gate.why(url) == words


async def test_who_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.0)
    async with gate(lambda _: True) as client:
        assert await client.code("127.0.0.1", 9, websocket=True) == UNREACHABLE
        assert client.gate.why("http://127.0.0.1:9/") == "it did not answer within 0 s"


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x05\x01\x00\x05\x01\x00\x09",
        b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50",
        b"\x05",
        b"",
    ],
)
async def test_rubbish_is_closed_and_costs_nothing(rubbish: bytes) -> None:
    async with gate(lambda _: True) as client:
        stream = await trio.open_tcp_stream("127.0.0.1", client.gate.port)
        async with stream:
            # Closed with what it did not read, it is reset.
            with suppress(trio.BrokenResourceError, OSError):
                await stream.send_all(rubbish)
                await stream.send_eof()
                while await stream.receive_some():
                    continue
        assert client.asked == []
        assert await client.code("127.0.0.1", 9, websocket=True) == REFUSED
