"""What the tests of calls share: an appliance inside the test, a gateway's requests, errors."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.actors.call.stories import at
from tests.appliance import Inside, inside, laid_over

Json = dict[str, Any]
BASE = "/internal/v1/calls"
OURS = "+911234567890"
CALLER = "+493012345678"

_numbers = itertools.count(1)


class Gateway:
    """A voice gateway that reports to an appliance."""

    def __init__(self, appliance: Inside, client: httpx.AsyncClient) -> None:
        self.appliance = appliance
        self.client = client

    async def start(self, **more: Any) -> str:
        """A call begins; its id."""
        answer = await self.try_start(**more)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["call_id"])

    async def try_start(self, **more: Any) -> httpx.Response:
        body = {
            "provider": "plivo",
            "provider_call_id": f"p{next(_numbers)}",
            "provider_stream_id": "",
            "phone_number_id": "demo",
            "from_number": CALLER,
            "to_number": OURS,
            "started_at": at(0),
        }
        return await self.client.post(f"{BASE}/start", json={**body, **more})

    async def send(self, call_id: str, *events: Json) -> httpx.Response:
        return await self.client.post(f"{BASE}/{call_id}/events", json={"events": list(events)})

    async def tell(self, call_id: str, *events: Json) -> None:
        """Events that are taken."""
        answer = await self.send(call_id, *events)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"}), answer.text

    async def try_end(self, call_id: str, when: float = 60_000, **more: Any) -> httpx.Response:
        body = {"ended_at": at(when), "status": "ended", **more}
        return await self.client.post(f"{BASE}/{call_id}/end", json=body)

    async def end(self, call_id: str, when: float = 60_000, **more: Any) -> None:
        """An end that is taken."""
        answer = await self.try_end(call_id, when, **more)
        assert (answer.status_code, answer.json()) == (200, {"call_id": call_id}), answer.text

    async def get(self, path: str, **query: Any) -> Any:
        """What is below /internal/v1."""
        answer = await self.client.get(f"/internal/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def call(self, call_id: str) -> Json:
        found: Json = await self.get(f"calls/{call_id}")
        return found

    async def events(self, call_id: str, **query: Any) -> list[Json]:
        found: list[Json] = (await self.get(f"calls/{call_id}/events", **query))["events"]
        return found

    async def until(self, call_id: str, holds: Callable[[Json], bool]) -> Json:
        """A call, once it holds of it."""
        found: Json = {}
        with trio.move_on_after(20):
            while True:
                found = await self.call(call_id)
                if holds(found):
                    return found
                await trio.sleep(0.02)
        raise AssertionError(f"not in time: {found}")


def event(when: float, type: str = "note", key: str | None = None, **payload: Any) -> Json:
    """An event as it is sent, so many milliseconds after the start."""
    found: Json = {"ts": at(when), "type": type, "payload": payload}
    return found if key is None else {**found, "idempotency_key": key}


def says(when: float, tag: str, text: str, **more: Any) -> Json:
    return event(when, "transcript", None, tag=tag, text=text, **more)


def is_actionable(answer: httpx.Response, status: int, code: str, **more: Any) -> Json:
    """Checks an error of the runtime surface (DECISIONS.md); it."""
    body = answer.json()
    assert answer.status_code == status, body
    assert set(body) == {"error"}
    error: Json = body["error"]
    assert set(error) == {"code", "message", "action", "retryable", "details"}
    assert error["code"] == code, body
    assert error["action"]
    assert error["retryable"] is (status >= 500)
    for name, value in more.items():
        assert error[name] == value, body
    return error


@asynccontextmanager
async def gateway(
    tmp_path: Path, config: Mapping[str, Any] | None = None, *, within: float = 60
) -> AsyncIterator[Gateway]:
    """One, and an appliance; nothing in the test may take longer than so many seconds."""
    base = {"limits": {"requests_per_minute": 0}}
    with trio.fail_after(within):
        async with inside(tmp_path, laid_over(base, config or {})) as it, it.client() as client:
            yield Gateway(it, client)
