"""A client that says exactly what it is told, byte by byte."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from tests.appliance import Appliance


@dataclass
class Answer:
    """Status, headers (lower case) and body of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Sent:
    """One server-sent event."""

    id: str | None
    kind: str
    data: dict[str, Any]


class Raw:
    """A connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = b""
        self._text = b""

    async def send(self, data: bytes | str) -> None:
        await self.stream.send_all(data.encode() if isinstance(data, str) else data)

    async def answer(self) -> Answer:
        """The next answer. Raises EOFError when there is none."""
        head = await self.head()
        body = b""
        if head.headers.get("transfer-encoding") == "chunked":
            while size := int((await self._until(b"\r\n")).strip(), 16):
                body += (await self._exactly(size + 2))[:-2]
            await self._exactly(2)
        else:
            body = await self._exactly(int(head.headers.get("content-length", "0")))
        return Answer(head.status, head.headers, body)

    async def head(self) -> Answer:
        """The head of an answer whose body does not end, such as a stream of events."""
        lines = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:] if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return Answer(int(lines[0].split()[1]), headers, b"")

    async def sent(self) -> Sent:
        """The next server-sent event. Raises EOFError at the end of the stream."""
        while b"\n\n" not in self._text:
            size = int((await self._until(b"\r\n")).strip(), 16)
            self._text += (await self._exactly(size + 2))[:-2]
            if not size:
                raise EOFError
        text, _, self._text = self._text.partition(b"\n\n")
        fields = dict(line.split(": ", 1) for line in text.decode().split("\n"))
        return Sent(fields.get("id"), fields["event"], json.loads(fields["data"]))

    async def rest(self) -> bytes:
        """All that comes until the other side closes."""
        try:
            while True:
                await self._more()
        except EOFError:
            rest, self._buffer = self._buffer, b""
            return rest

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            await self._more()
        found, _, self._buffer = self._buffer.partition(mark)
        return found + mark

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        found, self._buffer = self._buffer[:count], self._buffer[count:]
        return found

    async def _more(self) -> None:
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            raise EOFError(self._buffer)
        self._buffer += data


@asynccontextmanager
async def raw(appliance: Appliance, within: float = 20.0) -> AsyncIterator[Raw]:
    """A connection to an appliance; all that is done with it must be done within a time."""
    stream = await trio.open_tcp_stream("127.0.0.1", appliance.port)
    async with stream:
        with trio.fail_after(within):
            yield Raw(stream)


def request(
    appliance: Appliance,
    method: str,
    path: str,
    body: bytes = b"",
    length: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A request with the admin token; `length` is what it says of its body."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {appliance.token}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    if body or length is not None:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body
