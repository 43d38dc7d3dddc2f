"""Where a heartbeat, and a hello, say that a subscriber stands: never past what it was sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from trio_websocket import WebSocketConnection

from api.streams import Place
from supervisor.bus import Gap
from supervisor.event import Topics
from supervisor.transaction import Transaction
from tests.api.kit import CONFIG
from tests.api.raw import raw, request
from tests.appliance import Inside, inside

EVENTS = 2000


def many(tx: Transaction) -> int:
    for number in range(EVENTS):
        tx.emit("word.kept", f"word/{number}", {"n": number, "padding": "x" * 1000})
    return tx.head


async def frame(ws: WebSocketConnection) -> dict[str, Any]:
    """The next, whatever it is."""
    with trio.fail_after(20):
        found: dict[str, Any] = json.loads(await ws.get_message())
        return found


def number(token: str) -> int:
    return int(token.rpartition(":")[2])


@asynccontextmanager
async def beating(tmp_path: Path, every: float = 0.01) -> AsyncIterator[Inside]:
    async with inside(tmp_path, CONFIG, heartbeat=every) as appliance:
        yield appliance


async def test_a_heartbeat_names_only_what_was_sent_before_it(tmp_path: Path) -> None:
    """To one that reads slowly, one event a frame: it may be cut off at any of them."""
    async with beating(tmp_path) as appliance:
        head = await appliance.board.store.write(many)
        last = beats = amid = 0
        # Only what fills all buffers on the way, and then waits, meets beats between its events.
        async with appliance.ws("since=0") as ws:
            assert (await frame(ws))["type"] == "hello"
            while last < head:
                found = await frame(ws)
                if found["type"] == "heartbeat":
                    beats += 1
                    amid += 0 < last < head
                    assert number(found["token"]) == last
                    assert found["behind"] >= head - last
                else:
                    assert found["seq"] == last + 1
                    last = found["seq"]
                    if last % 100 == 0:
                        await trio.sleep(0.02)
            while (found := await frame(ws))["type"] != "heartbeat" or number(
                found["token"]
            ) < head:
                assert found["type"] == "heartbeat"
        assert amid >= 5, f"{beats} beats, {amid} of them between events"


async def test_one_that_resumes_at_any_heartbeat_misses_nothing(tmp_path: Path) -> None:
    async with beating(tmp_path) as appliance:
        head = await appliance.board.store.write(many)
        seen: list[int] = []
        since, resumed = "0", 0
        while not seen or seen[-1] < head:
            async with appliance.ws(f"since={since}") as ws:
                since = (await frame(ws))["token"]
                begun = len(seen)
                while not seen or seen[-1] < head:
                    found = await frame(ws)
                    if found["type"] != "heartbeat":
                        seen.append(found["seq"])
                        if len(seen) % 100 == 0:
                            await trio.sleep(0.02)
                    elif len(seen) - begun > 150:
                        since = found["token"]
                        resumed += 1
                        break
        assert seen == list(range(seen[0], head + 1))
        assert resumed >= 5


async def test_a_heartbeat_of_the_other_stream_names_only_what_was_sent_too(
    tmp_path: Path,
) -> None:
    async with beating(tmp_path) as appliance:
        # An entry holds many events: it takes more of them than the system's buffers hold.
        for _ in range(4):
            head = await appliance.board.store.write(many)
        last = amid = 0
        async with raw(appliance) as client:
            await client.send(request(appliance, "GET", "/events?since=0"))
            assert (await client.head()).status == 200
            while last < head:
                sent = await client.sent()
                if sent.kind == "heartbeat":
                    amid += last > 0
                    assert number(sent.data["token"]) == last
                elif sent.kind != "hello":
                    assert sent.data["seq"] == last + 1
                    last = sent.data["seq"]
                    if last % 256 == 0:
                        await trio.sleep(0.02)
        assert amid


async def test_the_token_of_a_hello_before_a_gap_is_the_one_that_was_asked_with(
    tmp_path: Path,
) -> None:
    """Who is cut off between the two is told of the gap again."""
    async with beating(tmp_path, 30.0) as appliance:
        since = "another-epoch:7"
        for _ in range(2):
            async with appliance.ws(f"since={since}") as ws:
                hello = await frame(ws)
                assert hello["token"] == since
                gap = await frame(ws)
                assert (gap["type"], gap["requested"]) == ("gap", since)
                assert number(gap["resumed_at"]) == 0
                assert (await frame(ws))["seq"] == 1
            since = hello["token"]


async def test_a_heartbeat_before_a_gap_does_not_skip_it(tmp_path: Path) -> None:
    """It waits for its turn while the gap is read, and has its turn first."""
    async with beating(tmp_path, 30.0) as appliance:
        streams, since = appliance.board.streams, "another-epoch:7"
        place = Place(streams.log.reader(since, Topics(), appliance.board.store))

        def token() -> str:
            return str(json.loads(streams.beat(place))["token"])

        assert token() == since
        assert isinstance(await place.read(), Gap)
        assert token() == since
        place.all_sent()
        assert token() == streams.log.token(0)
        found = await place.read()
        assert not isinstance(found, Gap)
        assert token() == streams.log.token(0)
        place.sent(found[0].seq)
        assert token() == streams.log.token(1)
