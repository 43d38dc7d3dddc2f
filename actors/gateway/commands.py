"""Commands of clients, as what is said to the gateway (DECISIONS.md on gateway.md)."""

from __future__ import annotations

import re

import trio

from actors.gateway import sip_message
from actors.gateway.calls import Calls
from actors.gateway.launch import Launch
from actors.gateway.messages import Json
from actors.gateway.runner import ContainerRunner
from supervisor.errors import Rejected

# Between two DTMF digits, in seconds: less, and a peer hears one long one.
DIGIT_EVERY = 0.25
MAX_DIGITS = 64
MAX_TEXT = 4096

_DIGITS = re.compile(r"[0-9A-Da-d*#]+")
_DIALLED = re.compile(r"[^\s\x00-\x1f\x7f]{1,256}")


async def execute(payload: Json, launch: Launch, calls: Calls, sender: str) -> Json:
    """Carry out one command; what the gateway answered.

    Raises Rejected: `invalid` for a parameter, `unsupported`, `no_answer`, `control_lost`,
    `command_failed`.
    """
    if payload.get("action") == "ping" and "command" not in payload:
        return await _ping(payload, launch)
    if isinstance(launch.runner, ContainerRunner) and launch.profile.control != "ctrl_tcp":
        return await launch.runner.execute(payload)
    if launch.lines is not None:
        return await launch.lines.request(payload)
    if launch.channel is None:
        raise Rejected("unsupported", "this profile has no control channel; it takes only a ping")
    command = payload.get("command")
    if not isinstance(command, str) or not re.fullmatch(r"[A-Za-z_]{1,64}", command):
        raise Rejected("invalid", "command: expected the name of a command")
    first = payload.get("param1", payload.get("params", ""))
    first = first if isinstance(first, str) else str(first)
    match command:
        case "dial":
            return await _dial(launch, first)
        case "endCall":
            return {**await _told(launch, "hangup", ""), "command": command}
        case "sendKey" | "sendString":
            return await _digits(launch, first, command)
        case "sendChat":
            return await _chat(payload, first, calls, launch, sender)
        case _:
            if re.search(r"[\x00-\x1f\x7f]", first) or len(first) > MAX_TEXT:
                raise Rejected("invalid", "param1: expected one line of text")
            return await _told(launch, command, first)


async def _ping(payload: Json, launch: Launch) -> Json:
    if launch.channel is not None:
        await launch.channel.command("reginfo", "")
    return {**payload, "pong": True}


async def _dial(launch: Launch, uri: str) -> Json:
    if not _DIALLED.fullmatch(uri):
        raise Rejected("invalid", "param1: expected a SIP address, such as sip:name@host")
    return await _told(launch, "dial", uri)


async def _told(launch: Launch, command: str, params: str) -> Json:
    assert launch.channel is not None
    answer = await launch.channel.command(command, params)
    if not answer.get("ok", False):
        raise Rejected("command_failed", str(answer.get("data") or f"{command} was refused"))
    return {"command": command, "ok": True, "data": answer.get("data", "")}


async def _digits(launch: Launch, digits: str, command: str) -> Json:
    if not _DIGITS.fullmatch(digits) or len(digits) > MAX_DIGITS:
        raise Rejected("invalid", "param1: expected DTMF digits (0-9, A-D, * and #)")
    if command == "sendKey" and len(digits) != 1:
        raise Rejected("invalid", "param1: expected one DTMF digit; sendString takes more")
    for i, digit in enumerate(digits):
        if i:
            await trio.sleep(DIGIT_EVERY)
        await _told(launch, "sndcode", digit)
    return {"command": command, "ok": True, "data": digits}


async def _chat(payload: Json, text: str, calls: Calls, launch: Launch, sender: str) -> Json:
    peer = payload.get("param2") or calls.peer()
    if not isinstance(peer, str):
        raise Rejected("invalid", "param2: expected the SIP address to send to, or a call")
    if not text or len(text.encode()) > MAX_TEXT:
        raise Rejected("invalid", f"param1: expected a text of at most {MAX_TEXT} bytes")
    status = await sip_message.send(peer, sender, launch.address, text)
    return {"command": "sendChat", "ok": True, "data": f"{status}", "peer": peer}
