"""One SIP MESSAGE over UDP, against a peer that answers, refuses, dawdles or says nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from actors.gateway import sip_message
from supervisor.errors import Rejected

SENDER = "sip:gw01@127.0.0.1:6000"
Answer = Callable[[bytes, int], list[bytes]]


def reply(datagram: bytes, status: str) -> bytes:
    """A response to a request: RFC 3261 §8.2.6.2 copies these headers."""
    heads = datagram.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    copied = [h for h in heads if h.split(b":")[0] in (b"Via", b"From", b"To", b"Call-ID", b"CSeq")]
    return b"\r\n".join([f"SIP/2.0 {status}".encode(), *copied, b"Content-Length: 0", b"", b""])


class Peer:
    """Answers each datagram with what `answer` makes of it and of its number."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.got: list[bytes] = []
        self.uri = ""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind(("127.0.0.1", 0))
            self.uri = f"sip:peer@127.0.0.1:{sock.getsockname()[1]}"
            task_status.started()
            while True:
                data, sender = await sock.recvfrom(65535)
                self.got.append(data)
                for answer in self.answer(data, len(self.got)):
                    await sock.sendto(answer, sender)


@asynccontextmanager
async def peer(answer: Answer) -> AsyncIterator[Peer]:
    async with trio.open_nursery() as nursery:
        there = Peer(answer)
        await nursery.start(there.run)
        with trio.fail_after(20):
            yield there
        nursery.cancel_scope.cancel()


async def send(to: Peer, text: str = "hello") -> int:
    return await sip_message.send(to.uri, SENDER, "127.0.0.1", text)


def test_the_datagram() -> None:
    made = sip_message.request("sip:you@h:5060", SENDER, ("127.0.0.1", 4444), "caffè", "id-1")
    head, _, body = made.partition(b"\r\n\r\n")
    assert body.decode() == "caffè"
    lines = head.decode().split("\r\n")
    assert lines[0] == "MESSAGE sip:you@h:5060 SIP/2.0"
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert re.fullmatch(
        r"SIP/2.0/UDP 127\.0\.0\.1:4444;rport;branch=z9hG4bK[0-9a-f]{16}", headers["Via"]
    )
    assert re.fullmatch(r"<sip:gw01@127\.0\.0\.1:6000>;tag=[0-9a-f]{8}", headers["From"])
    assert headers["To"] == "<sip:you@h:5060>"
    assert headers["Call-ID"] == "id-1"
    assert headers["CSeq"] == "1 MESSAGE"
    assert headers["Max-Forwards"] == "70"
    assert headers["Content-Type"] == "text/plain"
    assert headers["Content-Length"] == str(len("caffè".encode()))


async def test_an_accepted_message() -> None:
    async with peer(lambda data, _: [reply(data, "200 OK")]) as there:
        assert await send(there, "ciao") == 200
        assert there.got[0].endswith(b"\r\n\r\nciao")


async def test_a_provisional_answer_is_not_the_answer() -> None:
    async with peer(lambda data, _: [reply(data, "100 Trying"), reply(data, "202 Accepted")]) as to:
        assert await send(to) == 202


@pytest.mark.parametrize("status", ["405 Method Not Allowed", "404 Not Found", "603 Decline"])
async def test_a_refusal_says_the_peers_status(status: str) -> None:
    async with peer(lambda data, _: [reply(data, status)]) as there:
        with pytest.raises(Rejected, match=f"the peer answered {status}") as refused:
            await send(there)
        assert refused.value.code == "chat_refused"


async def test_what_is_no_answer_to_it_is_not_taken_for_one() -> None:
    def answer(data: bytes, _: int) -> list[bytes]:
        other = re.sub(rb"Call-ID: .*", b"Call-ID: another", reply(data, "486 Busy Here"))
        return [b"rubbish", b"", other, reply(data, "200 OK")]

    async with peer(answer) as there:
        assert await send(there) == 200


async def test_a_lost_datagram_is_sent_again_the_same() -> None:
    """RFC 3261 §17.1.2.2: a retransmission is the same request, with the same branch."""
    async with peer(lambda data, n: [reply(data, "200 OK")] if n == 3 else []) as there:
        assert await send(there) == 200
        assert len(there.got) == 3
        assert len(set(there.got)) == 1


async def test_silence_is_told_after_the_time_for_it(autojump_clock: MockClock) -> None:
    # Literal address: nothing here waits for a thread, so the clock may jump.
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as silent:
        await silent.bind(("127.0.0.1", 0))
        uri = f"sip:x@127.0.0.1:{silent.getsockname()[1]}"
        began = trio.current_time()
        with pytest.raises(Rejected, match="did not answer within 8 s") as refused:
            await sip_message.send(uri, SENDER, "127.0.0.1", "anybody?")
        assert refused.value.code == "no_answer"
        assert trio.current_time() - began == pytest.approx(sip_message.TIMEOUT)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "peer@127.0.0.1",
        "tel:+39123",
        "sip:",
        "sip:peer@",
        "sip:peer@127.0.0.1\r\nEvil: yes",
        "sip:a b@127.0.0.1",
        "<sip:a@127.0.0.1>",
        "sip:peer@127.0.0.1:0",
        "sip:peer@a..b",
        "sip:peer@" + "a" * 70,
        "sip:peer@-",
    ],
)
async def test_what_is_no_sip_address(uri: str) -> None:
    with trio.fail_after(10), pytest.raises(Rejected) as refused:
        await sip_message.send(uri, SENDER, "127.0.0.1", "x")
    assert refused.value.code in ("invalid", "no_answer")


async def test_a_host_that_cannot_be_reached_is_said() -> None:
    with trio.fail_after(10), pytest.raises(Rejected, match="cannot be reached") as refused:
        await sip_message.send("sip:x@no-such-host.invalid", SENDER, "127.0.0.1", "x")
    assert refused.value.code == "no_answer"
