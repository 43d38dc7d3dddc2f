"""The control channel: one contract for the real baresip and for the fake, then what only lies do.

The fake is a TCP server (ctrl.py). Deterministic: it answers when the test says so, and the waits
for what must not come run on a clock that jumps.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
import trio

from actors.gateway import control
from actors.gateway.control import ChannelBroken, CtrlTcp, Lines
from actors.gateway.messages import Json
from actors.gateway.netstring import MAX_FRAME, encode
from actors.gateway.ports import assigned
from actors.gateway.render import fields, render, write_files
from config.load import load
from config.model import PortRange, Ports
from supervisor.errors import Rejected
from supervisor.process import Command, Process
from tests.actors.ctrl import FakeGateway
from tests.appliance import ports as unused
from tests.supervisor.procs import registry

# -- the same of both -------------------------------------------------------------

HELP = "--- Help ---"


class Both:
    """A channel, whatever is at its other end."""

    def __init__(self, channel: CtrlTcp, events: list[Json]) -> None:
        self.channel = channel
        self.events = events


@asynccontextmanager
async def real(folder: Path) -> AsyncIterator[Both]:
    """baresip itself, as the packaged profile runs it."""
    first = unused(20)
    ranges = Ports(
        sip=PortRange(first=first, last=first + 1),
        control=PortRange(first=first + 2, last=first + 2),
        rtp=PortRange(first=first + 4, last=first + 19),
        rtp_per_gateway=10,
    )
    profile = load(None).gateways.profiles["baresip"]
    ports = assigned(ranges, 0)
    request = {"gw_id": "gw01", "room": "r", "main_app": "baresip"}
    values = fields(request, "127.0.0.1", ports, folder, folder)
    rendered = render(profile, request, values, folder)
    write_files(rendered, folder)
    events: list[Json] = []

    async def on_event(event: Json) -> None:
        events.append(event)

    async def keep(channel: CtrlTcp) -> None:
        with pytest.raises(ChannelBroken):
            await channel.run()

    async with trio.open_nursery() as nursery:
        process = Process(Command(rendered.argv, rendered.env, folder, "/test"), registry())
        await nursery.start(process.run)
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", ports.control)
                break
            except OSError:
                await trio.sleep(0.02)
        channel = CtrlTcp(stream, on_event)
        nursery.start_soon(keep, channel)
        yield Both(channel, events)
        await process.kill()


@asynccontextmanager
async def fake(_folder: Path) -> AsyncIterator[Both]:
    """The fake, answering as the real one does."""

    def answer(command: Json) -> list[bytes]:
        match command["command"]:
            case "reginfo":
                data = "\n--- User Agents (1) ---\n0 - sip:gw01@127.0.0.1:6000 \x1b[32mOK \x1b[0m\n"
                return [gateway.reply(command, data)]
            case "uanew" | "hangup":
                return [gateway.reply(command, "")]
            case "dial":
                ringing = gateway.event(
                    "CALL_OUTGOING", id="c1", peeruri=command["params"], direction="outgoing"
                )
                closed = gateway.event(
                    "CALL_CLOSED", id="c1", peeruri=command["params"], direction="outgoing"
                )
                return [ringing, closed, gateway.reply(command, "call id: c1")]
            case _:
                return [gateway.reply(command, "command not found", ok=False)]

    async with FakeGateway() as gateway:
        gateway.answer = answer
        yield Both(gateway.channel, gateway.events)


both = pytest.mark.parametrize("make", [real, fake], ids=["baresip", "fake"])
Make = Callable[[Path], AbstractAsyncContextManager[Both]]


@asynccontextmanager
async def within(make: Make, folder: Path, seconds: float = 30.0) -> AsyncIterator[Both]:
    with trio.fail_after(seconds):
        async with make(folder) as gateway:
            yield gateway


@both
async def test_a_command_is_answered_without_colours(make: Make, tmp_path: Path) -> None:
    async with within(make, tmp_path) as gateway:
        answer = await gateway.channel.command("reginfo", "")
        assert answer["ok"] is True
        assert "sip:gw01@127.0.0.1" in answer["data"]
        assert "\x1b" not in answer["data"]
        assert answer["data"] == answer["data"].strip()


@both
async def test_commands_may_overlap_and_each_gets_its_own_answer(
    make: Make, tmp_path: Path
) -> None:
    answers: dict[int, Json] = {}
    async with within(make, tmp_path) as gateway, trio.open_nursery() as nursery:

        async def ask(i: int) -> None:
            answers[i] = await gateway.channel.command("reginfo", "")

        for i in range(20):
            nursery.start_soon(ask, i)
    assert len({a["token"] for a in answers.values()}) == 20
    assert all(a["ok"] for a in answers.values())


@both
async def test_a_command_that_there_is_not_is_answered_so(make: Make, tmp_path: Path) -> None:
    async with within(make, tmp_path) as gateway:
        assert (await gateway.channel.command("nonsense", ""))["ok"] is False


@both
async def test_text_beyond_ascii_costs_nothing(make: Make, tmp_path: Path) -> None:
    async with within(make, tmp_path) as gateway:
        assert (await gateway.channel.command("reginfo", "caffè ☎"))["ok"] is True


@both
async def test_a_call_that_goes_nowhere_is_told_by_events(make: Make, tmp_path: Path) -> None:
    """To a port where nobody listens: the answer and the events come in any order."""
    async with within(make, tmp_path) as gateway:
        await gateway.channel.command("dial", "sip:x@127.0.0.1:9;transport=tcp")
        while not any(e["type"] == "CALL_CLOSED" for e in gateway.events):
            await trio.sleep(0.02)
        (closed,) = [e for e in gateway.events if e["type"] == "CALL_CLOSED"]
        assert closed["direction"] == "outgoing"
        assert closed["id"]
        assert "127.0.0.1:9" in closed["peeruri"]


# -- what a gateway can do wrong ------------------------------------------------------


@pytest.fixture
async def liar() -> AsyncIterator[FakeGateway]:
    """What waits in the tests below has a time limit of its own."""
    async with FakeGateway() as gateway:
        yield gateway


async def test_answers_in_any_order(liar: FakeGateway) -> None:
    held: list[Json] = []

    def answer(command: Json) -> list[bytes]:
        held.append(command)
        if len(held) < 5:
            return []
        return [liar.reply(c, c["command"]) for c in reversed(held)]

    liar.answer = answer
    got: dict[str, str] = {}

    async def ask(name: str) -> None:
        got[name] = (await liar.channel.command(name, ""))["data"]

    async with trio.open_nursery() as nursery:
        for name in "abcde":
            nursery.start_soon(ask, name)
    assert got == {name: name for name in "abcde"}


async def test_answers_that_nobody_asked_for_are_dropped(liar: FakeGateway) -> None:
    liar.answer = lambda c: [
        liar.reply({**c, "token": "s999"}),
        liar.reply({**c, "token": 7}),
        encode(b'{"response":true}'),
        encode(b'{"neither":1}'),
        liar.reply(c, "mine"),
        liar.reply(c, "twice"),
    ]
    assert (await liar.channel.command("one", ""))["data"] == "mine"
    assert (await liar.channel.command("two", ""))["data"] == "mine"


async def test_a_close_fails_all_who_wait_at_once(liar: FakeGateway) -> None:
    liar.answer = lambda _: []
    failed: list[Rejected] = []

    async def ask() -> None:
        try:
            await liar.channel.command("reginfo", "")
        except Rejected as error:
            failed.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await liar.seen(3)
        await liar.server.aclose()
    assert [(e.code, e.message) for e in failed] == [
        ("control_lost", "the control channel broke: it closed")
    ] * 3
    await liar.over.wait()
    assert not liar.channel.open
    with pytest.raises(Rejected, match="is down: it closed"):
        await liar.channel.command("reginfo", "")


@pytest.mark.parametrize(
    ("rubbish", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "expected a length"),
        (b"1073741824:{", "a length without an end"),
        (b"%d:" % (MAX_FRAME + 1), "a frame of"),
        (b"3:{abc},", "comma"),
        (encode(b"no json"), "JSON"),
        (encode(b"[1]"), "object"),
        (encode(b'{"event":' + b"[" * 100_000), "recursion"),
    ],
    ids=["http", "gigabyte", "too large", "no comma", "no json", "no object", "too deep"],
)
async def test_rubbish_breaks_the_channel_and_says_why(
    liar: FakeGateway, rubbish: bytes, why: str
) -> None:
    liar.answer = lambda _: [rubbish]
    with pytest.raises(Rejected, match=why) as refused:
        await liar.channel.command("reginfo", "")
    assert refused.value.code == "control_lost"
    await liar.over.wait()
    assert not liar.channel.open


async def test_a_stall_in_the_middle_of_a_frame(
    liar: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "FRAME_TIMEOUT", 0.2)
    liar.answer = lambda _: [b'100:{"response":']
    with pytest.raises(Rejected, match="stalled in the middle of a frame"):
        await liar.channel.command("reginfo", "")


async def test_a_frame_that_comes_a_byte_at_a_time_has_no_more_time(
    liar: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "FRAME_TIMEOUT", 0.3)
    liar.answer = lambda _: []
    codes: list[str] = []

    async def ask() -> None:
        with pytest.raises(Rejected) as refused:
            await liar.channel.command("reginfo", "", timeout=5.0)
        codes.append(refused.value.message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await liar.seen(1)
        await liar.say(b"2000:")
        while not codes:
            with suppress(trio.BrokenResourceError):
                await liar.say(b"x")
            await trio.sleep(0.05)
    assert codes == ["the control channel broke: it stalled in the middle of a frame"]


async def test_silence_between_frames_is_no_fault(
    liar: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "FRAME_TIMEOUT", 0.05)
    await liar.channel.command("reginfo", "")
    with trio.move_on_after(0.3):
        await liar.over.wait()
    assert liar.channel.open
    await liar.channel.command("reginfo", "")


async def test_no_answer_is_told_in_time_and_a_late_one_is_dropped(liar: FakeGateway) -> None:
    liar.answer = lambda _: []
    with pytest.raises(Rejected, match=r"did not answer within 0\.1 s") as refused:
        await liar.channel.command("reginfo", "", timeout=0.1)
    assert refused.value.code == "no_answer"
    late = liar.heard[0]
    liar.answer = lambda c: [liar.reply(late, "late"), liar.reply(c, "now")]
    assert (await liar.channel.command("reginfo", ""))["data"] == "now"


async def test_a_gateway_that_reads_nothing_holds_nobody_for_ever(liar: FakeGateway) -> None:
    liar.answer = lambda _: []
    liar.reading = False
    codes: list[str] = []

    async def ask() -> None:
        try:
            await liar.channel.command("uanew", "x" * 200_000, timeout=0.5)
        except Rejected as error:
            codes.append(error.code)

    async with trio.open_nursery() as nursery:
        for _ in range(control.MAX_WAITING):
            nursery.start_soon(ask)
    assert codes == ["no_answer"] * control.MAX_WAITING


async def test_too_many_that_wait_are_refused_at_once(liar: FakeGateway) -> None:
    liar.answer = lambda _: []

    async def ask() -> None:
        with pytest.raises(Rejected, match="the control channel broke"):
            await liar.channel.command("reginfo", "")

    async with trio.open_nursery() as nursery:
        for _ in range(control.MAX_WAITING):
            nursery.start_soon(ask)
        await liar.seen(control.MAX_WAITING)
        with pytest.raises(Rejected, match="too many commands wait") as refused:
            await liar.channel.command("one more", "")
        assert refused.value.code == "busy"
        await liar.server.aclose()
    assert len(liar.heard) == control.MAX_WAITING


async def test_an_asker_that_goes_leaves_no_place_taken(liar: FakeGateway) -> None:
    liar.answer = lambda _: []
    for _ in range(control.MAX_WAITING + 5):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(liar.channel.command, "reginfo", "")
                await trio.testing.wait_all_tasks_blocked(0.001)
                scope.cancel()
    liar.answer = lambda c: [liar.reply(c, "still there")]
    assert (await liar.channel.command("reginfo", ""))["data"] == "still there"


async def test_events_come_in_their_order_between_answers(liar: FakeGateway) -> None:
    liar.answer = lambda c: [
        liar.event("ONE", id="a"),
        liar.reply(c) + liar.event("TWO", id="a"),
        liar.event("THREE", id="a")[:10],
        liar.event("THREE", id="a")[10:],
    ]
    await liar.channel.command("reginfo", "")
    await liar.seen(3)
    assert [e["type"] for e in liar.events] == ["ONE", "TWO", "THREE"]


async def test_a_name_in_another_encoding_costs_nothing(liar: FakeGateway) -> None:
    raw = b'{"event":true,"type":"CALL_INCOMING","id":"a","peerdisplayname":"Jos\xe9"}'
    liar.answer = lambda c: [encode(raw), liar.reply(c)]
    await liar.channel.command("reginfo", "")
    assert liar.events[0]["peerdisplayname"] == "Jos\ufffd"
    assert liar.channel.open


# -- lines of JSON, to a script ----------------------------------------------------------


async def test_a_line_for_a_command_and_a_line_with_its_id_for_the_answer() -> None:
    sent: list[Json] = []

    async def send(data: bytes) -> None:
        assert data.endswith(b"\n")
        sent.append(msgspec.json.decode(data))

    lines = Lines(send)
    got: dict[str, Json] = {}

    async def ask(what: str) -> None:
        got[what] = await lines.request({"command": what})

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "a")
            nursery.start_soon(ask, "b")
            while len(sent) < 2:
                await trio.sleep(0)
            for message in reversed(sent):
                lines.take({"id": message["id"], "said": message["command"]})
                lines.take({"id": message["id"], "said": "twice"})
    assert got == {"a": {"said": "a"}, "b": {"said": "b"}}


async def test_a_client_cannot_choose_the_id_of_another_command() -> None:
    sent: list[Json] = []

    async def send(data: bytes) -> None:
        sent.append(msgspec.json.decode(data))
        lines.take({"id": sent[-1]["id"], "ok": True})

    lines = Lines(send)
    assert await lines.request({"id": "s99", "command": "x"}) == {"ok": True}
    assert sent == [{"command": "x", "id": "s1"}]


async def test_a_script_that_ends_fails_all_who_wait() -> None:
    async def send(_data: bytes) -> None:
        lines.close()

    lines = Lines(send)
    with pytest.raises(Rejected, match="the script ended") as refused:
        await lines.request({"command": "x"})
    assert refused.value.code == "control_lost"


async def test_a_script_that_says_nothing() -> None:
    async def send(_data: bytes) -> None:
        """Swallowed."""

    with pytest.raises(Rejected, match="did not answer") as refused:
        await Lines(send).request({"command": "x"}, timeout=0.05)
    assert refused.value.code == "no_answer"


async def test_a_script_that_reads_nothing() -> None:
    async def send(_data: bytes) -> None:
        await trio.sleep_forever()

    with pytest.raises(Rejected, match="reads no commands"):
        await Lines(send).request({"command": "x"}, timeout=0.05)


async def test_a_script_whose_input_is_closed() -> None:
    async def send(_data: bytes) -> None:
        raise trio.BrokenResourceError

    with pytest.raises(Rejected, match="standard input is closed") as refused:
        await Lines(send).request({"command": "x"})
    assert refused.value.code == "control_lost"
