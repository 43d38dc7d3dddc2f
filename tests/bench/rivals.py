"""FastAPI on uvicorn, as it is written in its tutorial: what the appliance is compared with.

`python -m tests.bench.rivals answer PORT ANSWER`: answers GET with the JSON in the file ANSWER.
`... calls PORT DATABASE`: takes calls and their events, a commit for each request.
`... broadcast PORT`: a /ws; on SIGUSR1 it sends a burst of events, each to each socket.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import signal
import sqlite3
import sys
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel

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


class CallStart(BaseModel):
    """A call begins."""

    provider: str
    provider_call_id: str
    provider_stream_id: str = ""
    phone_number_id: str = ""
    from_number: str = ""
    to_number: str = ""
    started_at: datetime.datetime


class CallEvent(BaseModel):
    """Something happens in a call."""

    ts: datetime.datetime
    type: str
    payload: dict[str, Any]


class CallEvents(BaseModel):
    """A batch."""

    events: list[CallEvent]


def calls(port: int, file: str) -> None:
    """FastAPI over SQLite: each request is a transaction, synced before it is answered."""
    connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE calls (id TEXT PRIMARY KEY, provider TEXT, provider_call_id TEXT,"
        " body TEXT, UNIQUE (provider, provider_call_id))"
    )
    connection.execute(
        "CREATE TABLE events (call TEXT, ts TEXT, type TEXT, payload TEXT, key TEXT,"
        " UNIQUE (call, key))"
    )
    lock = threading.Lock()
    application = FastAPI()

    @application.post("/internal/v1/calls/start")
    def start(body: CallStart) -> dict[str, str]:
        call_id = str(uuid.uuid4())
        with lock:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO calls VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (call_id, body.provider, body.provider_call_id, body.model_dump_json()),
            )
            connection.execute("COMMIT")
        return {"call_id": call_id}

    @application.post("/internal/v1/calls/{call_id}/events")
    def events(call_id: str, body: CallEvents) -> dict[str, str]:
        rows = []
        for one in body.events:
            ts, payload = one.ts.isoformat(), json.dumps(one.payload, sort_keys=True)
            same = hashlib.blake2b(f"{ts}{one.type}{payload}".encode(), digest_size=16)
            rows.append((call_id, ts, one.type, payload, same.hexdigest()))
        with lock:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows
            )
            connection.execute("COMMIT")
        return {"status": "ok"}

    @application.get("/up")
    async def up() -> dict[str, Any]:
        return {}

    _uvicorn(application, port)


def _uvicorn(application: Any, port: int) -> None:
    uvicorn.run(application, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["answer", port, file]:
            answer(int(port), file)
        case ["broadcast", port]:
            broadcast(int(port))
        case ["calls", port, file]:
            calls(int(port), file)
