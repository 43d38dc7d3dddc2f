"""What of a client's command is refused before anything is said to the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from actors.gateway import commands
from actors.gateway.calls import Calls
from actors.gateway.control import Lines
from actors.gateway.launch import Launch
from actors.gateway.messages import Json
from actors.gateway.ports import Assigned
from actors.gateway.render import Rendered
from actors.gateway.runner import ProcessRunner
from config.model import Profile, Ready
from supervisor.errors import Rejected
from tests.actors.ctrl import FakeGateway
from tests.supervisor.procs import registry

SENDER = "sip:gw01@127.0.0.1:6000"


async def ignore(_event: Json) -> None:
    """Of events that a test is not about."""


def bare() -> Launch:
    """A launch that has no control channel."""
    profile = Profile(command=["true"], ready=Ready(when="running"))
    launch = Launch(profile, "gw01", "127.0.0.1", Assigned(6000, 7000, 8000, 8009), ignore)
    rendered = Rendered(["true"], {}, {}, Path())
    launch.runner = ProcessRunner(profile, rendered, "/test", registry(), launch.take_line)
    return launch


async def told(payload: Json, *, data: str = "", ok: bool = True) -> tuple[Json, list[Json]]:
    """The answer to a command, and what the gateway was told for it."""
    async with FakeGateway() as gateway:
        gateway.answer = lambda command: [gateway.reply(command, data, ok=ok)]
        launch = bare()
        launch.channel = gateway.channel
        return await commands.execute(payload, launch, Calls(), SENDER), gateway.heard


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"action": "pong"},
        {"command": None},
        {"command": 7},
        {"command": ""},
        {"command": "a b"},
        {"command": "quit\n"},
        {"command": "/quit"},
        {"command": "x" * 65},
        {"command": "dial"},
        {"command": "dial", "param1": "sip:a b"},
        {"command": "dial", "param1": "sip:a\n"},
        {"command": "dial", "param1": "x" * 257},
        {"command": "sendKey", "param1": ""},
        {"command": "sendKey", "param1": "12"},
        {"command": "sendKey", "param1": "x"},
        {"command": "sendString", "param1": "12E"},
        {"command": "sendString", "param1": "1" * 65},
        {"command": "sendString", "param1": "١"},
        {"command": "sendChat", "param1": "hello"},
        {"command": "sendChat", "param1": "", "param2": "sip:x@127.0.0.1"},
        {"command": "sendChat", "param1": "x" * 5000, "param2": "sip:x@127.0.0.1"},
        {"command": "sendChat", "param1": "x", "param2": 7},
        {"command": "sendChat", "param1": "x", "param2": "nobody"},
        {"command": "callstat", "params": "one\r\ntwo"},
        {"command": "callstat", "params": "x" * 5000},
    ],
    ids=str,
)
async def test_a_command_that_is_refused(payload: Json) -> None:
    async with FakeGateway() as gateway:
        launch = bare()
        launch.channel = gateway.channel
        with trio.fail_after(5), pytest.raises(Rejected) as refused:
            await commands.execute(payload, launch, Calls(), SENDER)
    assert refused.value.code == "invalid"
    assert gateway.heard == []


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"command": "dial", "param1": "sip:a@b"}, [("dial", "sip:a@b")]),
        ({"command": "endCall"}, [("hangup", "")]),
        ({"command": "sendKey", "param1": "#"}, [("sndcode", "#")]),
        ({"command": "sendKey", "param1": 5}, [("sndcode", "5")]),
        ({"command": "sendString", "param1": "1*a"}, [("sndcode", c) for c in "1*a"]),
        ({"command": "callstat"}, [("callstat", "")]),
        ({"command": "uanew", "params": "<sip:x@y>"}, [("uanew", "<sip:x@y>")]),
        ({"command": "uanew", "param1": "<sip:x@y>"}, [("uanew", "<sip:x@y>")]),
        ({"action": "ping", "command": "hold"}, [("hold", "")]),
    ],
    ids=str,
)
async def test_what_the_gateway_is_told(payload: Json, said: list[tuple[str, str]]) -> None:
    with trio.fail_after(5):
        answer, heard = await told(payload)
    assert [(h["command"], h["params"]) for h in heard] == said
    assert answer["ok"] is True
    assert answer["command"] == payload["command"]


async def test_what_the_gateway_answered_is_in_the_answer() -> None:
    with trio.fail_after(5):
        answer, _ = await told({"command": "callstat"}, data="\x1b[32m one call \x1b[0m")
    assert answer == {"command": "callstat", "ok": True, "data": "one call"}


async def test_a_command_that_the_gateway_refuses() -> None:
    with trio.fail_after(5), pytest.raises(Rejected, match="no such") as refused:
        await told({"command": "nonsense"}, data="no such command", ok=False)
    assert refused.value.code == "command_failed"


async def test_a_ping_asks_the_gateway_and_gives_itself_back() -> None:
    with trio.fail_after(5):
        answer, heard = await told({"action": "ping", "n": 1})
    assert answer == {"action": "ping", "n": 1, "pong": True}
    assert [h["command"] for h in heard] == ["reginfo"]


async def test_without_a_channel_there_is_only_the_ping() -> None:
    assert await commands.execute({"action": "ping"}, bare(), Calls(), SENDER) == {
        "action": "ping",
        "pong": True,
    }
    with pytest.raises(Rejected, match="no control channel") as refused:
        await commands.execute({"command": "dial"}, bare(), Calls(), SENDER)
    assert refused.value.code == "unsupported"


async def test_a_script_is_handed_anything() -> None:
    written: list[bytes] = []
    launch = bare()

    async def send(data: bytes) -> None:
        written.append(data)
        assert launch.lines is not None
        launch.lines.take({"id": "s1", "done": True})

    launch.lines = Lines(send)
    payload: dict[str, Any] = {"command": "any thing", "deep": {"x": [1]}}
    assert await commands.execute(payload, launch, Calls(), SENDER) == {"done": True}
    assert written == [b'{"command":"any thing","deep":{"x":[1]},"id":"s1"}\n']
