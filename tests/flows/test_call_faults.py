"""Calls of a whole appliance: killed while many of them go on, and begun all at once."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.actors.call.stories import at
from tests.api.raw import Raw, raw, request
from tests.appliance import Appliance, running

Json = dict[str, Any]
BASE = "/internal/v1/calls"
# All come from one address.
CONFIG = {
    "limits": {"requests_per_minute": 0, "connections": 2000, "connections_per_address": 2000}
}


@dataclass
class Live:
    """A call as its gateway knows it: what was sent, and up to where it was acknowledged."""

    number: int
    call_id: str = ""
    acknowledged: int = 0
    sent: int = 0
    ended: bool = False
    rng: random.Random = field(default_factory=random.Random)

    def body(self) -> Json:
        return {
            "provider": "test",
            "provider_call_id": f"call-{self.number}",
            "phone_number_id": "demo",
            "from_number": f"+4930{1_000_000 + self.number}",
            "to_number": "+911234567890",
            "started_at": at(0),
        }

    def batch(self) -> list[Json]:
        """The next, or again the one that was not acknowledged: some by key and some without."""
        if self.sent == self.acknowledged:
            self.sent += self.rng.randint(1, 8)
        return [self.event(n) for n in range(self.acknowledged, self.sent)]

    def event(self, n: int) -> Json:
        found: Json = {"ts": at(n), "type": "note", "payload": {"n": n, "of": self.number}}
        return {**found, "idempotency_key": f"n{n}"} if self.number % 2 else found


@dataclass
class Traffic:
    """All calls, each told of by a client of its own until they are to be over."""

    appliance: Appliance
    calls: list[Live]
    over: trio.Event = field(default_factory=trio.Event)
    _more: trio.Event = field(default_factory=trio.Event)

    @property
    def acknowledged(self) -> int:
        return sum(call.acknowledged for call in self.calls)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once it holds of what was acknowledged."""
        with trio.fail_after(120):
            while not holds():
                await self._more.wait()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for call in self.calls:
                nursery.start_soon(self._tell, call)

    async def _tell(self, call: Live) -> None:
        while not (call.ended and self.over.is_set()):
            try:
                async with raw(self.appliance, within=300) as connection:
                    while not (call.ended and self.over.is_set()):
                        await self._step(connection, call)
            except (OSError, EOFError, trio.BrokenResourceError):
                # It was killed: the same again, as soon as somebody answers.
                await trio.sleep(0.05)

    async def _step(self, connection: Raw, call: Live) -> None:
        if not call.call_id:
            answer = await self._post(connection, "/start", call.body())
            if answer is not None:
                call.call_id = json.loads(answer)["call_id"]
        elif self.over.is_set():
            body = {"ended_at": at(call.sent), "status": "ended"}
            call.ended = await self._post(connection, f"/{call.call_id}/end", body) is not None
        else:
            batch = {"events": call.batch()}
            if await self._post(connection, f"/{call.call_id}/events", batch) is not None:
                call.acknowledged = call.sent
                self._more.set()
                self._more = trio.Event()

    async def _post(self, connection: Raw, path: str, body: Json) -> bytes | None:
        """What it was answered; None where it is to be sent again. All else is wrong."""
        data = json.dumps(body).encode()
        await connection.send(request(self.appliance, "POST", f"{BASE}{path}", data))
        answer = await connection.answer()
        assert answer.status in (200, 503), answer
        return answer.body if answer.status == 200 else None


async def check(traffic: Traffic) -> None:
    """All that was acknowledged is there, nothing is there twice, and all are ended."""
    async with traffic.appliance.client() as client:
        for call in traffic.calls:
            found = (await client.get(f"{BASE}/{call.call_id}")).json()
            assert (found["status"], found["reason"]) == ("ended", "")
            page = await client.get(f"{BASE}/{call.call_id}/events", params={"limit": 10_000})
            events = page.json()["events"]
            times = Counter(e["payload"]["n"] for e in events)
            assert set(times.values()) <= {1}, f"twice: {times.most_common(3)}"
            assert set(range(call.acknowledged)) <= set(times)
            assert set(times) <= set(range(call.sent))
            assert {e["payload"]["of"] for e in events} <= {call.number}
            assert sorted(e["place"] for e in events) == list(range(1, len(events) + 1))
            assert found["events"] == len(events)
        left = (await client.get(BASE, params={"status": "in_progress"})).json()["calls"]
        assert left == []


@pytest.mark.parametrize(
    ("count", "kills"), [(50, 2), pytest.param(500, 4, marks=pytest.mark.soak)]
)
async def test_killed_under_live_calls_nothing_acknowledged_is_missing_and_nothing_is_there_twice(
    tmp_path: Path, count: int, kills: int
) -> None:
    with trio.fail_after(600):
        async with running(tmp_path, CONFIG) as appliance, trio.open_nursery() as nursery:
            calls = [Live(number, rng=random.Random(number)) for number in range(count)]
            traffic = Traffic(appliance, calls)
            nursery.start_soon(traffic.run)
            for _ in range(kills):
                # In the midst of it: each call goes on, and many batches are under way.
                before = {call.number: call.acknowledged for call in calls}
                await traffic.until(
                    lambda before=before: all(  # type: ignore[misc]
                        call.acknowledged > before[call.number] for call in calls
                    )
                )
                await appliance.kill9()
                await appliance.start()
            killed = {call.number: call.acknowledged for call in calls}
            await traffic.until(lambda: all(c.acknowledged > killed[c.number] for c in calls))
            traffic.over.set()
            with trio.fail_after(120):
                while not all(call.ended for call in calls):
                    await trio.sleep(0.05)
            await check(traffic)
            assert len({call.call_id for call in calls}) == count


async def test_live_calls_have_their_actors_again_after_a_kill(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with running(tmp_path, CONFIG) as appliance:
            async with appliance.client() as client:
                call = Live(0)
                answer = await client.post(f"{BASE}/start", json=call.body())
                call.call_id = answer.json()["call_id"]
                over = await client.post(f"{BASE}/start", json=Live(1).body())
                ended = {"ended_at": at(0), "status": "ended"}
                path = f"{BASE}/{over.json()['call_id']}/end"
                assert (await client.post(path, json=ended)).status_code == 200
            await appliance.kill9()
            await appliance.start()
            async with appliance.client() as client:
                text = (await client.get("/system/tree")).text
                assert call.call_id in text
                assert over.json()["call_id"] not in text
                # The same start is the same call, and the same end the same end.
                again = await client.post(f"{BASE}/start", json=call.body())
                assert again.json() == {"call_id": call.call_id}
                assert (await client.post(path, json=ended)).status_code == 200


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.soak)])
async def test_calls_that_begin_at_once_are_all_taken(tmp_path: Path, count: int) -> None:
    ids: list[str] = []
    clients = 10

    async def start(client: httpx.AsyncClient, number: int) -> None:
        answer = await client.post(f"{BASE}/start", json=Live(number).body())
        assert answer.status_code == 200, answer.text
        ids.append(answer.json()["call_id"])

    async def starts(appliance: Appliance, first: int) -> None:
        limits = httpx.Limits(max_connections=50)
        async with (
            appliance.client(timeout=120.0, limits=limits) as client,
            trio.open_nursery() as nursery,
        ):
            for number in range(first, count, clients):
                nursery.start_soon(start, client, number)

    with trio.fail_after(300):
        async with running(tmp_path, CONFIG) as appliance:
            async with trio.open_nursery() as nursery:
                for first in range(clients):
                    nursery.start_soon(starts, appliance, first)
            assert len(set(ids)) == len(ids) == count
            async with appliance.client() as client:
                found: list[str] = []
                query: Json | None = {"status": "in_progress", "limit": 500}
                while query is not None:
                    page = (await client.get(BASE, params=query)).json()
                    found += [call["call_id"] for call in page["calls"]]
                    query = {**query, "before": page["next"]} if page["next"] else None
            assert sorted(found) == sorted(ids)
