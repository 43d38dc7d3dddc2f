"""A lean client, the same for all: raw sockets and epoll, prepared bytes, no library.

It runs in a process of its own (kit.fresh) and does as little as it can for each answer, so that
it is the server that is measured.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable

WARM_UP = 0.3
STALLED = 20.0
_LENGTH = b"content-length: "


class Link:
    """A connection and what has come of the next answer."""

    __slots__ = ("buffer", "need", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.need = 0


def pump(links: list[Link], came: Callable[[Link], bool]) -> None:
    """Hand on what comes until `came` says that it is enough."""
    by_number = {link.socket.fileno(): link for link in links}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    while True:
        ready = poll.poll(STALLED)
        if not ready:
            raise RuntimeError("the server stalled")
        for number, _ in ready:
            link = by_number[number]
            data = link.socket.recv(262_144)
            if not data:
                raise RuntimeError("the server closed the connection")
            link.buffer += data
            if came(link):
                poll.close()
                return


# -- HTTP -------------------------------------------------------------------------


def requests(port: int, request: str, connections: int, seconds: float) -> float:
    """Answers a second to the same request over kept connections, one at a time on each."""
    raw = request.encode()
    links = [Link(port) for _ in range(connections)]
    for link in links:
        link.socket.sendall(raw)
    meter = _Meter(seconds)

    def came(link: Link) -> bool:
        if not link.need:
            head = link.buffer.find(b"\r\n\r\n")
            if head < 0:
                return False
            assert link.buffer.startswith(b"HTTP/1.1 200"), link.buffer[:200]
            at = link.buffer.lower().index(_LENGTH, 0, head + 2) + len(_LENGTH)
            link.need = head + 4 + int(link.buffer[at : link.buffer.index(b"\r\n", at)])
        if len(link.buffer) < link.need:
            return False
        link.buffer, link.need = b"", 0
        link.socket.sendall(raw)
        return meter.count()

    pump(links, came)
    return meter.rate()


class _Meter:
    """Counts answers from the end of the warm-up for some seconds."""

    def __init__(self, seconds: float) -> None:
        self._begin = time.perf_counter() + WARM_UP
        self._end = self._begin + seconds
        self._first = self._last = 0.0
        self._counted = 0

    def count(self) -> bool:
        """One more; True when that was the last."""
        self._last = time.perf_counter()
        if not self._first:
            if self._last >= self._begin:
                self._first = self._last
            return False
        self._counted += 1
        return self._last >= self._end

    def rate(self) -> float:
        """A second."""
        return self._counted / (self._last - self._first)


# -- WebSocket ----------------------------------------------------------------------


def _open(port: int, path: str, headers: str) -> Link:
    link = Link(port)
    link.socket.sendall(
        f"GET {path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"{headers}\r\n".encode()
    )
    while b"\r\n\r\n" not in link.buffer:
        link.buffer += link.socket.recv(4096)
    head, _, link.buffer = link.buffer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    return link


def _frames(link: Link) -> list[bytes]:
    """The payloads of all whole frames that have come (RFC 6455 §5.2)."""
    buffer, at, found = link.buffer, 0, []
    while len(buffer) - at >= 2:
        length, start = buffer[at + 1], at + 2
        if length == 126:
            start, length = at + 4, int.from_bytes(buffer[at + 2 : at + 4])
        elif length == 127:
            start, length = at + 10, int.from_bytes(buffer[at + 2 : at + 10])
        if len(buffer) < start + length:
            break
        found.append(buffer[start : start + length])
        at = start + length
    link.buffer = buffer[at:]
    return found


def _command(text: str) -> bytes:
    """A text frame of a client, with a mask of zeros."""
    payload = text.encode()
    assert len(payload) < 126
    return bytes((0x81, 0x80 | len(payload))) + bytes(4) + payload


def commands(
    port: int, path: str, headers: str, command: str, in_flight: int, seconds: float
) -> float:
    """Answers a second to the same command over one WebSocket."""
    link = _open(port, path, headers)
    raw = _command(command)
    meter = _Meter(seconds)
    link.socket.sendall(raw * in_flight)

    def came(link: Link) -> bool:
        answers = [frame for frame in _frames(link) if frame.startswith(b'{"id"')]
        for answer in answers:
            assert b'"status":200' in answer, answer
            if meter.count():
                return True
        if answers:
            link.socket.sendall(raw * len(answers))
        return False

    pump([link], came)
    return meter.rate()


def subscribe(
    port: int, path: str, headers: str, subscribers: int, pid: int, events: int, bursts: int
) -> list[float]:
    """Deliveries a second of each burst: from the signal until the last has the last event."""
    links = [_open(port, path, headers) for _ in range(subscribers)]
    _count(links, b'"hello"', subscribers)
    rates = []
    for _ in range(bursts):
        time.sleep(0.1)
        began = time.perf_counter()
        os.kill(pid, signal.SIGUSR1)
        _count(links, b'{"seq":', subscribers * events)
        rates.append(subscribers * events / (time.perf_counter() - began))
    return rates


def _count(links: list[Link], mark: bytes, wanted: int) -> None:
    """Return when `mark` has come so many times, in frames of one or of many."""
    seen = sum(frame.count(mark) for link in links for frame in _frames(link))
    if seen >= wanted:
        return

    def came(link: Link) -> bool:
        nonlocal seen
        for frame in _frames(link):
            seen += frame.count(mark)
        return seen >= wanted

    pump(links, came)
