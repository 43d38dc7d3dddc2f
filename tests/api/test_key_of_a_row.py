"""A key that only the gateway's row still knows stands for the same body as before."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from supervisor.database import NAME
from tests.api.kit import CONFIG, is_envelope, make_token, start_request
from tests.appliance import Appliance, running


def forget_answers(appliance: Appliance) -> None:
    """As if it had died between the row and the answer."""
    assert not appliance.running
    with closing(sqlite3.connect(appliance.folder / NAME)) as database, database:
        assert database.execute("DELETE FROM idempotency").rowcount == 1


@pytest.mark.parametrize("way", ["kill", "stop"])
async def test_the_same_key_with_another_body_is_refused(tmp_path: Path, way: str) -> None:
    headers = {"Idempotency-Key": "one-key"}
    body = start_request("gw", "plain", extra={"b": 1, "a": 2})
    with trio.fail_after(60):
        async with running(tmp_path, CONFIG) as appliance:
            async with appliance.client() as client:
                first = await client.post("/gateway/start", json=body, headers=headers)
                assert first.status_code == 200
                other = await make_token(client, "*")
            await (appliance.kill9() if way == "kill" else appliance.stop())
            forget_answers(appliance)
            await appliance.start()
            async with appliance.client() as client:
                changed = {**body, "room": "other"}
                answer = await client.post("/gateway/start", json=changed, headers=headers)
                assert answer.status_code == 409, answer.text
            async with appliance.client(token=other) as client:
                # Another's key of the same name is another key.
                answer = await client.post("/gateway/start", json=body, headers=headers)
                is_envelope(answer, 409, "already_running")
                answer = await client.get("/gateway/status?gw_id=gw")
                assert answer.json()["data"]["room"] == "hall"


async def test_the_same_key_and_body_are_taken_up(tmp_path: Path) -> None:
    """Also with the body's fields in another order: what is asked for is the same."""
    headers = {"Idempotency-Key": "one-key"}
    body = start_request("gw", "plain", extra={"b": 1, "a": 2})
    with trio.fail_after(60):
        async with running(tmp_path, CONFIG) as appliance:
            async with appliance.client() as client:
                assert (
                    await client.post("/gateway/start", json=body, headers=headers)
                ).status_code == 200
            await appliance.kill9()
            forget_answers(appliance)
            await appliance.start()
            async with appliance.client() as client:
                turned = dict(reversed(body.items()))
                answer = await client.post("/gateway/start", json=turned, headers=headers)
                assert answer.status_code == 200, answer.text
                assert answer.json()["data"] == {"processing_state": "working", "gw_id": "gw"}
                status = (await client.get("/gateway/status?gw_id=gw")).json()["data"]
                assert (status["state"], status["restarts"]) == ("up", 0)
