"""`switchboard events`: a WebSocket client that resumes where it was."""

from __future__ import annotations

import json
import random
import urllib.parse
from typing import Any

import click
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    open_websocket_url,
)

from api.cli.base import REFUSED, Client, fail
from supervisor.backoff import Backoff

AGAIN = Backoff(first=0.5, cap=10.0)


class _Follower:
    def __init__(self, since: str | None, topics: str, count: int | None, as_json: bool) -> None:
        self.since = since
        self.topics = topics
        self.left = count
        self.as_json = as_json
        self.failures = 0
        self.connected = False

    def take(self, frame: dict[str, Any]) -> None:
        """Print one frame and note where to resume."""
        kind = frame.get("type")
        if kind == "hello":
            self.epoch = frame["epoch"]
            self.since, self.failures, self.connected = frame["token"], 0, True
        elif kind == "heartbeat":
            self.since = frame["token"]
        elif kind == "batch":
            for event in frame["events"]:
                self.print(event)
            self.since = frame["token"]
        else:
            self.print(frame)
            if "seq" in frame:
                self.since = f"{self.epoch}:{frame['seq']}"

    def print(self, event: dict[str, Any]) -> None:
        """One event, or a gap."""
        if self.left == 0:
            return
        if self.as_json:
            click.echo(json.dumps(event, ensure_ascii=False))
        else:
            data = json.dumps(event.get("data", event), ensure_ascii=False)
            click.echo(f"{event['ts']} {event['type']} {event.get('subject', '')} {data}")
        if self.left is not None:
            self.left -= 1


async def follow(
    client: Client, since: str | None, topics: str, count: int | None, as_json: bool
) -> None:
    """Print events until `count` are printed; reconnect with backoff when cut off."""
    follower = _Follower(since, topics, count, as_json)
    rng = random.Random()  # noqa: S311 - jitter
    while follower.left != 0:
        try:
            await _once(client, follower)
        except (OSError, HandshakeError, ConnectionClosed) as error:
            if isinstance(error, ConnectionRejected) and error.status_code < 500:
                body = (error.body or b"").decode("utf-8", "replace")
                fail(f"refused with {error.status_code}: {body}", REFUSED)
            if not follower.connected:
                client.unreachable(error)
            follower.failures += 1
            await trio.sleep(AGAIN.delay(follower.failures, rng))


async def _once(client: Client, follower: _Follower) -> None:
    query = {"topics": follower.topics, "batch": "1"}
    if follower.since:
        query["since"] = follower.since
    url = client.url.replace("http", "ws", 1) + "/ws?" + urllib.parse.urlencode(query)
    headers = [(b"Authorization", f"Bearer {client.token}".encode())] if client.token else []
    async with open_websocket_url(url, client.tls, extra_headers=headers) as socket:
        while follower.left != 0:
            follower.take(json.loads(await socket.get_message()))
