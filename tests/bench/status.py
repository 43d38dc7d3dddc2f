"""GET /gateway/status at 32 kept connections, and the same asked over one /ws with 32 in flight.

The appliance (token checked, the gateway's actor asked) is beside a bare ASGI application that
answers the very same bytes on the same Hypercorn, and beside FastAPI on uvicorn that answers the
same JSON from a constant.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.bench.kit import Options, Rounds, Row, Target, folder, fresh
from tests.bench.servers import GATEWAY, Server, appliance_with_gateway, host

CONNECTIONS = 32
PATH = f"/gateway/status?gw_id={GATEWAY}"
COMMAND = json.dumps({"id": 1, "method": "GET", "path": PATH})
# Its own events would be a load that the others do not have.
SOCKET = "/ws?topics=none"


def run(options: Options) -> list[Row]:
    """See the module."""
    seconds = 0.3 if options.quick else 2.0
    with ExitStack() as stack:
        place = stack.enter_context(folder())
        ours = stack.enter_context(appliance_with_gateway())
        answer = _keep_answer(ours, place)
        bare = stack.enter_context(host("hosts", "bare", answer))
        fastapi = stack.enter_context(host("rivals", "answer", answer))
        rounds = Rounds(
            options.pick(1, 5),
            partial(_http, ours, seconds),
            partial(_http, bare, seconds, ours.authorization),
            partial(_http, fastapi, seconds, ours.authorization),
            partial(_socket, ours, seconds),
        )
    over_http = f"GET /gateway/status at {CONNECTIONS} connections"
    over_socket = f"the same over one /ws, {CONNECTIONS} in flight"
    http, socket = rounds.median(0), rounds.median(3)
    bare_app = "the same bytes from bare ASGI on Hypercorn"
    other = "FastAPI on uvicorn, HTTP"
    return [
        Row(over_http, http, "req/s", bare_app, rounds.ratio(0, 1), Target(">=", 0.85)),
        Row(over_http, http, "req/s", other, rounds.ratio(0, 2)),
        Row(over_socket, socket, "req/s", other, rounds.ratio(3, 2), Target(">", 1)),
    ]


def _keep_answer(server: Server, place: Path) -> str:
    """The appliance's answer, for the others to give; Hypercorn adds the date itself."""
    status, headers, body = server.ask("GET", PATH)
    assert status == 200, body
    kept = [(name, value) for name, value in headers if name.lower() != "date"]
    file = place / "answer.json"
    file.write_text(json.dumps([status, kept, body.decode()]))
    return str(file)


def _http(server: Server, seconds: float, authorization: str = "") -> float:
    authorization = authorization or server.authorization
    request = f"GET {PATH} HTTP/1.1\r\nHost: bench\r\n{authorization}\r\n"
    return float(fresh("load:requests", server.port, request, CONNECTIONS, seconds))


def _socket(server: Server, seconds: float) -> float:
    headers = server.authorization
    return float(
        fresh("load:commands", server.port, SOCKET, headers, COMMAND, CONNECTIONS, seconds)
    )
