"""What the tests of the API share: cheap gateways, names, and the shapes of errors."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import httpx

from tests.appliance import Appliance

# Answers each command with itself and with what it was started with; `die` ends it.
ECHO = """
import json, os, sys
print(json.dumps({"status": "ok"}), flush=True)
for line in sys.stdin:
    command = json.loads(line)
    if command.get("command") == "die":
        sys.exit(9)
    if command.get("command") == "environment":
        command["environment"] = dict(os.environ)
    print(json.dumps(command), flush=True)
"""

PROFILES: dict[str, Any] = {
    "echo": {
        "command": [sys.executable, "-I", "-S", "-c", ECHO],
        "control": "lines",
        "ready": {"when": "result", "timeout": 10},
        "stop": {"grace": 2},
        "restart": {"policy": "temporary"},
    },
    "plain": {
        "command": ["sleep", "1000"],
        "ready": {"when": "running", "seconds": 0.05},
        "stop": {"grace": 2},
    },
    "broken": {
        "command": ["sh", "-c", "echo no sound card here >&2; exit 7"],
        "ready": {"when": "running", "seconds": 5},
    },
}
CONFIG: dict[str, Any] = {"gateways": {"profiles": PROFILES, "linger": 0.2}}

_numbers = itertools.count(1)


def name(prefix: str = "gw") -> str:
    """One that no other test uses."""
    return f"{prefix}-{next(_numbers)}"


def start_request(gw_id: str, main_app: str = "echo", **more: Any) -> dict[str, Any]:
    """The least that a start needs."""
    return {"gw_id": gw_id, "room": "hall", "main_app": main_app, **more}


async def make_token(client: httpx.AsyncClient, *scopes: str, named: str | None = None) -> str:
    """A token with these scopes."""
    answer = await client.post(
        "/system/tokens", json={"name": named or name("token"), "scopes": list(scopes)}
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["token"])


def is_envelope(answer: httpx.Response, status: int, code: str) -> str:
    """Checks an error of the gateway surface (contracts/gateway.md); its message."""
    body = answer.json()
    assert answer.status_code == status, body
    assert answer.headers["content-type"] == "application/json"
    assert set(body) == {"status", "error", "data"}
    assert body["status"] == "error"
    assert body["data"] is None
    assert body["error"]["code"] == code, body
    return str(body["error"]["message"])


def is_plain(answer: httpx.Response, status: int, code: str) -> str:
    """Checks an error of the appliance's own surfaces; its message."""
    body = answer.json()
    assert answer.status_code == status, body
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "details"}
    assert body["error"]["code"] == code, body
    return str(body["error"]["message"])


async def handshake(
    appliance: Appliance, query: str = "", token: str | None = None
) -> httpx.Response:
    """The answer to a WebSocket handshake that is refused."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with appliance.client(token=token) as client:
        return await client.get(f"/ws?{query}", headers=headers)
