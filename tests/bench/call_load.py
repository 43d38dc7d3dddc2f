"""A lean client for calls: one connection for each live call, and two that measure beside it."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.bench.load import STALLED, Link, pump

WARM_UP = 0.5
TS = "2026-01-01T08:00:01.000000Z"


class Talker:
    """A connection that sends one request after another and reads their answers."""

    def __init__(self, port: int, authorization: str) -> None:
        self.link = Link(port)
        self._authorization = authorization
        self._need = 0

    def send(self, method: str, path: str, body: bytes = b"") -> None:
        """The next request."""
        self.link.socket.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: bench\r\n{self._authorization}"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    def answer(self) -> bytes | None:
        """The body of its answer, when it is there."""
        buffer = self.link.buffer
        if not self._need:
            head = buffer.find(b"\r\n\r\n")
            if head < 0:
                return None
            assert buffer.startswith(b"HTTP/1.1 200"), buffer[:400]
            at = buffer.lower().index(b"content-length: ", 0, head + 2) + 16
            self._need = head + 4 + int(buffer[at : buffer.index(b"\r\n", at)])
        if len(buffer) < self._need:
            return None
        body = buffer[buffer.index(b"\r\n\r\n") + 4 : self._need]
        self.link.buffer, self._need = buffer[self._need :], 0
        return body

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request and its answer."""
        self.send(method, path, b"" if body is None else json.dumps(body).encode())
        while (found := self.answer()) is None:
            self.link.socket.settimeout(STALLED)
            self.link.buffer += self.link.socket.recv(262_144)
        return json.loads(found)


def start_body(number: str) -> dict[str, str]:
    """A start of a call of its own."""
    return {
        "provider": "bench",
        "provider_call_id": number,
        "phone_number_id": "demo",
        "from_number": "+4930123456",
        "to_number": "+911234567890",
        "started_at": TS,
    }


def start(port: int, authorization: str, prefix: str, count: int) -> list[str]:
    """Ids of so many calls that have begun."""
    talker = Talker(port, authorization)
    return [
        talker.ask("POST", "/internal/v1/calls/start", start_body(f"{prefix}-{n}"))["call_id"]
        for n in range(count)
    ]


def events(
    port: int, authorization: str, calls: list[str], batch: int, seconds: float, probe: bool
) -> dict[str, float]:
    """Events a second over all calls; with `probe`, milliseconds of the slowest hundredth.

    Each request has events that were never sent before; each call waits for its answer.
    """
    talkers = {}
    probes: list[Talker] = []
    for call in calls:
        talker = Talker(port, authorization)
        talkers[talker.link] = (talker, f"/internal/v1/calls/{call}/events")
    run = str(time.time_ns())
    sent = 0
    # Not made anew each time: it is the server that is measured.
    said = f"what somebody says, {run} %d"
    payload = {"tag": "CALLER", "text": said}
    one = json.dumps({"ts": TS, "type": "transcript", "payload": payload})

    def following(talker: Talker, path: str) -> None:
        nonlocal sent
        several = ",".join([one % n for n in range(sent, sent + batch)])
        sent += batch
        talker.send("POST", path, f'{{"events":[{several}]}}'.encode())

    latencies: dict[str, list[float]] = {"start": [], "resolve": []}
    asked: dict[Any, tuple[str, float]] = {}

    def measure(talker: Talker, kind: str) -> None:
        asked[talker.link] = (kind, time.perf_counter())
        if kind == "start":
            body = json.dumps(start_body(f"{run}-{len(latencies['start'])}")).encode()
            talker.send("POST", "/internal/v1/calls/start", body)
        else:
            talker.send("GET", "/internal/v1/runtime/phone_numbers/+911234567890")

    if probe:
        probes = [Talker(port, authorization) for _ in range(2)]
    by_link = {talker.link: talker for talker in probes}
    for talker, path in talkers.values():
        following(talker, path)
    for talker, kind in zip(probes, latencies, strict=False):
        measure(talker, kind)
    begin = time.perf_counter() + WARM_UP
    counted, first, last = 0, 0.0, 0.0

    def came(link: Link) -> bool:
        nonlocal counted, first, last
        known = by_link.get(link)
        now = time.perf_counter()
        if known is not None:
            if known.answer() is not None:
                kind, then = asked[link]
                if now >= begin:
                    latencies[kind].append((now - then) * 1000)
                measure(known, kind)
            return False
        talker, path = talkers[link]
        if talker.answer() is None:
            return False
        following(talker, path)
        if now >= begin:
            if first:
                counted += batch
            else:
                first = now
            last = now
        return now >= begin + seconds

    pump([*talkers, *by_link], came)
    found = {"rate": counted / (last - first)}
    for kind, measured in latencies.items():
        if measured:
            measured.sort()
            found[kind] = measured[min(len(measured) - 1, int(len(measured) * 0.99))]
    return found
