"""A receiver of webhooks on a loopback socket: HTTP/1.1 by h11, answering as a test tells it.

Every request that it gets is checked with the library of the Standard Webhooks project.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import h11
import standardwebhooks
import trio

from tests.appliance import ports

PATIENCE = 20.0


def secret(letter: str = "k", size: int = 32) -> str:
    """A key of its own for each letter."""
    return "whsec_" + base64.b64encode(letter.encode() * size).decode()


SECRET = secret()


@dataclass
class Got:
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    at: float = field(default_factory=trio.current_time)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def subject(self) -> str:
        return str(self.json["subject"])

    @property
    def seq(self) -> int:
        return int(self.json["seq"])


@dataclass
class Answer:
    """What it gets. `gate` is waited for before the answer, `hang` means none ever comes."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    endless: bool = False
    hang: bool = False
    cut: bool = False
    gate: trio.Event | None = None


Rule = Callable[[Got], Answer]


class Receiver:
    """`answer` decides; `got` is all that came, `taken` what was answered with a 2xx."""

    def __init__(self, port: int | None = None, secrets: tuple[str, ...] = (SECRET,)) -> None:
        self.port = port or ports()
        self.secrets = secrets
        self.answer: Rule = lambda _got: Answer()
        self.got: list[Got] = []
        self.taken: list[Got] = []
        self.most_at_once = 0
        self._at_once = 0
        self._connections = 0
        self._more = trio.Event()
        self._scope = trio.CancelScope()
        self.tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/hooks"

    # -- what a test waits for ---------------------------------------------------

    async def until(self, wanted: Callable[[Self], bool], what: str = "what was wanted") -> None:
        with trio.move_on_after(PATIENCE):
            while not wanted(self):
                await self._more.wait()
            return
        raise AssertionError(f"not {what}; got: {[(g.id, g.body) for g in self.got]}")

    async def requests(self, count: int) -> list[Got]:
        """All, when there are so many."""
        await self.until(lambda it: len(it.got) >= count, f"{count} requests")
        return self.got

    async def took(self, count: int) -> list[Got]:
        """All that were taken, when there are so many."""
        await self.until(lambda it: len(it.taken) >= count, f"{count} taken")
        return self.taken

    def of(self, subject: str) -> list[int]:
        """The numbers that were taken of a subject, in the order in which they were."""
        return [got.seq for got in self.taken if got.subject == subject]

    # -- the server ----------------------------------------------------------------

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._scope = trio.CancelScope()
        with self._scope:
            async with trio.open_nursery() as nursery:
                listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
                nursery.start_soon(trio.serve_listeners, self._connection, listeners)
                task_status.started()

    def stop(self) -> None:
        """As one whose machine went down: connections too."""
        self._scope.cancel()

    async def _connection(self, stream: trio.abc.Stream) -> None:
        self._connections += 1
        number = self._connections
        if self.tls is not None:
            stream = trio.SSLStream(
                stream,
                self.tls,
                server_side=True,
                https_compatible=True,
            )
        http = h11.Connection(h11.SERVER)
        try:
            async with stream:
                while await self._request(stream, http, number):
                    http.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            return

    async def _request(self, stream: trio.abc.Stream, http: h11.Connection, number: int) -> bool:
        request, body = None, b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some(65536)))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert request is not None
        headers = {k.decode(): v.decode() for k, v in request.headers}
        got = Got(request.target.decode(), headers, body, number)
        for known in self.secrets:
            standardwebhooks.Webhook(known).verify(body, headers)
        self.got.append(got)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        answer = self.answer(got)
        self._tell()
        try:
            return await self._reply(stream, http, got, answer)
        finally:
            self._at_once -= 1

    async def _reply(
        self, stream: trio.abc.Stream, http: h11.Connection, got: Got, answer: Answer
    ) -> bool:
        if answer.gate is not None:
            await answer.gate.wait()
        if answer.hang:
            await trio.sleep_forever()
        if answer.cut:
            return False
        length = {} if answer.endless else {"content-length": str(len(answer.body))}
        if answer.status == 204:
            length = {}
        head = h11.Response(
            status_code=answer.status, headers=list({**length, **answer.headers}.items())
        )
        await stream.send_all(http.send(head) or b"")
        if 200 <= answer.status < 300:
            self.taken.append(got)
            self._tell()
        while answer.endless:
            await stream.send_all(http.send(h11.Data(data=b"x" * 16384)) or b"")
        if answer.body:
            await stream.send_all(http.send(h11.Data(data=answer.body)) or b"")
        await stream.send_all(http.send(h11.EndOfMessage()) or b"")
        return http.our_state is h11.DONE and http.their_state is h11.DONE

    def _tell(self) -> None:
        self._more.set()
        self._more = trio.Event()


@asynccontextmanager
async def receiver(
    port: int | None = None, secrets: tuple[str, ...] = (SECRET,), tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """One that listens."""
    it = Receiver(port, secrets)
    it.tls = tls
    async with trio.open_nursery() as nursery:
        await nursery.start(it.serve)
        try:
            yield it
        finally:
            nursery.cancel_scope.cancel()


def in_turn(*answers: Answer) -> Rule:
    """These one after the other, and the last for all that come after."""
    left: Iterator[Answer] = iter(answers[:-1])
    return lambda _got: next(left, answers[-1])


def webhook(it: Receiver | str, *topics: str, **more: Any) -> dict[str, Any]:
    """A section of the configuration, quick enough for a test."""
    return {
        "url": it if isinstance(it, str) else it.url,
        "secret": SECRET,
        "topics": list(topics) or ["thing"],
        "timeout": 5.0,
        "backoff_first": 0.05,
        "backoff_cap": 0.2,
        **more,
    }
