"""The same request sent twice is done once, and answered the same."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import trio

from tests.api.kit import CONFIG, is_envelope, is_plain, make_token, name, start_request
from tests.api.raw import raw, request
from tests.appliance import Appliance, running


def key(text: str) -> dict[str, str]:
    return {"Idempotency-Key": text}


async def launches(appliance: Appliance, gw_id: str) -> int:
    """How often a gateway was launched, as the log tells."""
    path = f"/events?since=0&topics=gateway/{gw_id},token.created"
    async with raw(appliance) as connection, appliance.client() as client:
        # An event after all others: where it comes there is no more.
        last = name("token")
        await make_token(client, "*", named=last)
        await connection.send(request(appliance, "GET", path))
        await connection.head()
        types = []
        while (sent := await connection.sent()).data.get("subject") != f"token/{last}":
            types.append(sent.kind)
    return types.count("gateway.starting")


async def test_the_same_key_and_body_are_answered_the_same(shared: Appliance) -> None:
    gw_id, mine = name(), key(name("key"))
    body = start_request(gw_id)
    async with shared.client() as client:
        first = await client.post("/gateway/start", json=body, headers=mine)
        again = await client.post("/gateway/start", json=body, headers=mine)
        assert first.status_code == again.status_code == 200
        assert first.content == again.content
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        # Also when it is down again: the answer is to that request, not to how things are now.
        await client.post("/gateway/stop", json={"gw_id": gw_id})
        assert (await client.post("/gateway/start", json=body, headers=mine)).status_code == 200
        status = await client.get(f"/gateway/status?gw_id={gw_id}")
        assert status.json()["data"]["gw_state"] == "down"
    assert await launches(shared, gw_id) == 1


async def test_another_body_under_the_same_key_is_refused(shared: Appliance) -> None:
    gw_id, mine = name(), key(name("key"))
    async with shared.client() as client:
        await client.post("/gateway/start", json=start_request(gw_id), headers=mine)
        other = await client.post(
            "/gateway/start", json=start_request(gw_id, from_id="x"), headers=mine
        )
        is_envelope(other, 409, "key_reused")
        await client.post("/gateway/stop", json={"gw_id": gw_id})


async def test_a_key_belongs_to_its_caller(shared: Appliance) -> None:
    gw_id, mine = name(), key(name("key"))
    async with shared.client() as client:
        other = await make_token(client, "gateway:rw")
        first = await client.post("/gateway/start", json=start_request(gw_id), headers=mine)
        assert first.status_code == 200
        async with shared.client(token=other) as stranger:
            answer = await stranger.post("/gateway/start", json=start_request(gw_id), headers=mine)
        is_envelope(answer, 409, "already_running")
        await client.post("/gateway/stop", json={"gw_id": gw_id})


async def test_many_at_once_are_done_once(shared: Appliance) -> None:
    gw_id, mine = name(), key(name("key"))
    answers: list[httpx.Response] = []

    async def post() -> None:
        async with shared.client() as client:
            answers.append(
                await client.post("/gateway/start", json=start_request(gw_id), headers=mine)
            )

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(post)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len([a for a in answers if "idempotent-replayed" in a.headers]) == 7
    assert await launches(shared, gw_id) == 1
    async with shared.client() as client:
        await client.post("/gateway/stop", json={"gw_id": gw_id})


async def test_a_client_that_hung_up_finds_its_gateway_when_it_asks_again(
    shared: Appliance,
) -> None:
    gw_id, mine = name(), key(name("key"))
    body = start_request(gw_id)
    async with shared.client() as client:
        with trio.move_on_after(0.005):
            await client.post("/gateway/start", json=body, headers=mine)
    async with shared.client() as client:
        answer = await client.post("/gateway/start", json=body, headers=mine)
        assert answer.status_code == 200, answer.text
        await client.post("/gateway/stop", json={"gw_id": gw_id})
    assert await launches(shared, gw_id) == 1


@pytest.mark.parametrize("bad", ["", "x" * 201, "a\tb"])
async def test_a_key_that_is_none(shared: Appliance, bad: str) -> None:
    async with shared.client() as client:
        answer = await client.post("/gateway/start", json=start_request(name()), headers=key(bad))
        assert "Idempotency-Key" in is_envelope(answer, 400, "invalid")


async def test_a_failure_of_ours_is_not_kept(shared: Appliance) -> None:
    gw_id, mine = name(), key(name("key"))
    async with shared.client() as client:
        for _ in range(2):
            answer = await client.post(
                "/gateway/start", json=start_request(gw_id, "broken"), headers=mine
            )
            is_envelope(answer, 500, "start_failed")
    assert await launches(shared, gw_id) == 2


async def test_a_key_where_nothing_is_created_changes_nothing(shared: Appliance) -> None:
    async with shared.client() as client:
        for _ in range(2):
            answer = await client.post("/system/reload", json={"dry": True}, headers=key("again"))
            assert answer.status_code == 200
            assert "idempotent-replayed" not in answer.headers


async def test_keys_outlive_a_kill_and_a_restart(tmp_path: Path) -> None:
    body = start_request("gw01", "plain")
    async with running(tmp_path, CONFIG) as appliance:
        async with appliance.client() as client:
            first = await client.post("/gateway/start", json=body, headers=key("one"))
            assert first.status_code == 200
        await appliance.kill9()
        await appliance.restart()
        async with appliance.client() as client:
            again = await client.post("/gateway/start", json=body, headers=key("one"))
            assert again.content == first.content
            assert again.headers["idempotent-replayed"] == "true"
        await appliance.restart()
        async with appliance.client() as client:
            again = await client.post("/gateway/start", json=body, headers=key("one"))
            assert again.content == first.content
            other = await client.post(
                "/gateway/start", json=body | {"room": "other"}, headers=key("one")
            )
            is_envelope(other, 409, "key_reused")
            await client.post("/gateway/stop", json={"gw_id": "gw01"})
            is_plain(await client.get("/system/nothing"), 404, "not_found")
