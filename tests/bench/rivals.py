"""FastAPI on uvicorn, as it is written in its tutorial: what the appliance is compared with.

`python -m tests.bench.rivals answer PORT ANSWER`: answers GET with the JSON in the file ANSWER.
`... broadcast PORT`: a /ws; on SIGUSR1 it sends a burst of events, each to each socket.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from supervisor.event import timestamp
from tests.bench.hosts import BURST, event, read_answer


def answer(port: int, file: str) -> None:
    """FastAPI on uvicorn, answering the same JSON."""
    _status, _headers, body = read_answer(file)
    data = json.loads(body)
    application = FastAPI()

    @application.get("/gateway/status")
    async def status(gw_id: str) -> dict[str, Any]:
        assert gw_id
        return dict(data)

    @application.get("/up")
    async def up() -> dict[str, Any]:
        return {}

    _uvicorn(application, port)


def broadcast(port: int) -> None:
    """FastAPI on uvicorn, sending each event to each socket."""
    sockets: list[WebSocket] = []

    async def burst() -> None:
        for number in range(BURST):
            text = json.dumps(
                {
                    "seq": number,
                    "ts": timestamp(),
                    "type": "bench.tick",
                    "subject": "bench/burst",
                    "data": event(number),
                },
                separators=(",", ":"),
            )
            for socket in sockets:
                await socket.send_text(text)

    @asynccontextmanager
    async def life(_application: FastAPI) -> AsyncIterator[None]:
        tasks: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, lambda: tasks.add(loop.create_task(burst())))
        yield

    application = FastAPI(lifespan=life)

    @application.get("/up")
    async def up() -> dict[str, Any]:
        return {}

    @application.websocket("/ws")
    async def listen(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text('{"type":"hello"}')
        sockets.append(socket)
        try:
            while True:
                await socket.receive_text()
        except WebSocketDisconnect:
            sockets.remove(socket)

    _uvicorn(application, port)


def _uvicorn(application: Any, port: int) -> None:
    uvicorn.run(application, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["answer", port, file]:
            answer(int(port), file)
        case ["broadcast", port]:
            broadcast(int(port))
