"""GET /events: the log as server-sent events."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.api.kit import make_token, name
from tests.api.raw import Sent, raw, request
from tests.appliance import Appliance, inside, running


async def first(appliance: Appliance, count: int, path: str, **headers: str) -> list[Sent]:
    """The first so many of a stream."""
    async with raw(appliance, within=10) as connection:
        await connection.send(request(appliance, "GET", path, headers=headers))
        head = await connection.head()
        assert head.status == 200
        assert head.headers["content-type"] == "text/event-stream"
        assert head.headers["cache-control"] == "no-store"
        return [await connection.sent() for _ in range(count)]


async def test_it_begins_with_a_hello_and_each_event_has_its_token_as_id(
    shared: Appliance,
) -> None:
    hello, one, two = await first(shared, 3, "/events?since=0")
    epoch = hello.data["epoch"]
    assert (hello.kind, hello.id) == ("hello", None)
    assert (one.id, two.id) == (f"{epoch}:1", f"{epoch}:2")
    assert one.kind == one.data["type"]
    assert one.data["seq"] == 1


async def test_last_event_id_resumes_and_counts_before_since(shared: Appliance) -> None:
    hello, one, two = await first(shared, 3, "/events?since=0")
    assert one.id is not None
    resumed = await first(shared, 2, "/events?since=0", **{"Last-Event-ID": one.id})
    assert resumed[0].data["token"] == one.id
    assert resumed[1] == two
    assert hello.data["head"]


async def test_topics_select(shared: Appliance) -> None:
    named = name("token")
    async with shared.client() as client:
        await make_token(client, "*", named=named)
    _, found = await first(shared, 2, f"/events?since=0&topics=token/{named}")
    assert found.kind == "token.created"
    assert found.data["subject"] == f"token/{named}"


async def test_what_cannot_be_had_is_a_gap(shared: Appliance) -> None:
    _, gap, one = await first(shared, 3, "/events", **{"Last-Event-ID": "0badc0de:5"})
    assert gap.kind == "gap"
    assert gap.data["reason"] == "epoch"
    assert gap.data["requested"] == "0badc0de:5"
    assert one.data["seq"] == 1


async def test_heartbeats_keep_it_alive(tmp_path: Path) -> None:
    async with inside(tmp_path, heartbeat=0.05) as appliance:
        found = await first(appliance, 4, "/events?topics=none")
    assert [event.kind for event in found] == ["hello", "heartbeat", "heartbeat", "heartbeat"]
    assert found[1].data["behind"] == 0


async def test_it_ends_when_the_appliance_stops(tmp_path: Path) -> None:
    async with running(tmp_path) as appliance, raw(appliance, within=10) as connection:
        await connection.send(request(appliance, "GET", "/events"))
        await connection.head()
        assert (await connection.sent()).kind == "hello"
        appliance.signal(signal.SIGTERM)
        with pytest.raises(EOFError):
            while True:
                assert (await connection.sent()).kind == "system.stopping"
        assert await appliance.exited(5) == 0
