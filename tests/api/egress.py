"""What the tests of the egress surface share: an appliance that takes tasks and begins none."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import httpx

from tests.appliance import Appliance

APP = "/egress/v1/app1/tasks"
# Nothing is claimed: what is enqueued stays so, and a stop ends it at once.
IDLE: dict[str, Any] = {"egress": {"limits": {"tasks": 0}, "claim_timeout": 3600}}

_numbers = itertools.count(1)


def request_id() -> str:
    """One that no other test uses."""
    return f"r{next(_numbers)}"


def body(cmd: str = "record", **payload: Any) -> dict[str, Any]:
    """The least that a start needs, of a request of its own."""
    return {
        "request_id": request_id(),
        "cmd": cmd,
        "payload": {"channel": "egress_test", **payload},
    }


async def started(client: httpx.AsyncClient, **payload: Any) -> str:
    """A new task's id."""
    answer = await client.post(APP, json=body(**payload))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["task_id"])


async def over(client: httpx.AsyncClient, **payload: Any) -> str:
    """A task that has ended."""
    task_id = await started(client, **payload)
    answer = await client.post(f"{APP}/{task_id}/stop", json={"request_id": request_id()})
    assert answer.json()["status"] == "enqueued", answer.text
    return task_id


def files_of(appliance: Appliance, task_id: str) -> Path:
    """Where a task's files are; made if need be."""
    folder = appliance.folder / "egress" / task_id / "files"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def is_named(answer: httpx.Response, status: int, sent: str = "") -> str:
    """Checks an error of the egress surface (contracts/egress.md); its message.

    `sent` is the request's own id, where it could be read.
    """
    found = answer.json()
    assert answer.status_code == status, found
    assert answer.headers["content-type"] == "application/json"
    assert set(found) == {"error", "request_id"}
    assert found["request_id"] == sent
    assert found["error"]
    return str(found["error"])
