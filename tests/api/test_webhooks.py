"""Webhooks over the API: how they are, their dead letters, going on, a test; and /healthz."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.api.kit import CONFIG, is_plain, make_token, start_request
from tests.appliance import Appliance, laid_over, running
from tests.receiver import SECRET, Answer, in_turn, receiver, webhook

Json = dict[str, Any]


def config(**hooks: Json) -> Json:
    return laid_over(CONFIG, {"webhooks": hooks})


async def hook(client: httpx.AsyncClient, name: str = "hook") -> Json:
    """How it is."""
    answer = await client.get("/system/webhooks")
    assert answer.status_code == 200
    found: Json = next(it for it in answer.json()["webhooks"] if it["name"] == name)
    return found


async def once(
    client: httpx.AsyncClient, wanted: Callable[[Json], bool], name: str = "hook"
) -> Json:
    """How it is, once it is as wanted. For what no event tells of."""
    found: Json = {}
    with trio.move_on_after(20):
        while not wanted(found := await hook(client, name)):
            await trio.sleep(0.02)
        return found
    raise AssertionError(found)


async def happen(client: httpx.AsyncClient, name: str) -> None:
    """Something happens: two tokens are told of by the log at once."""
    await make_token(client, "events:ro", named=name)


async def test_a_dead_letter_is_seen_everywhere_and_sent_again(tmp_path: Path) -> None:
    async with receiver() as it:
        it.answer = lambda _got: Answer(500, body=b"out of order")
        hooks = config(hook=webhook(it, "token", attempts=2))
        async with running(tmp_path, hooks) as appliance, appliance.client() as client:
            await happen(client, "one")
            await happen(client, "two")
            seen = await once(client, lambda h: h["dead"] == 2)
            assert (seen["pending"], seen["last_error"]) == (0, "answered 500")
            health = (await client.get("/healthz")).json()
            assert health["status"] == "degraded"
            assert health["problems"] == [
                "webhook 'hook' has 2 dead letters: see `switchboard webhooks dead hook`"
            ]
            path = "/system/webhooks/hook"
            page = (await client.get(f"{path}/deliveries?state=dead&limit=1")).json()
            (newest,) = page["deliveries"]
            assert (newest["type"], newest["attempts"]) == ("token.created", 2)
            assert (newest["status"], newest["answer"]) == (500, "out of order")
            more = (await client.get(f"{path}/deliveries?after={page['next']}")).json()
            (oldest,) = more["deliveries"]
            assert oldest["seq"] < newest["seq"]
            assert more["next"] is None
            it.answer = lambda _got: Answer()
            answer = await client.post(f"{path}/redrive", json={"ids": [newest["id"]]})
            assert answer.json() == {"redriven": 1, "left": 1}
            answer = await client.post(f"{path}/redrive")
            assert answer.json() == {"redriven": 1, "left": 0}
            await it.took(2)
            assert {got.id for got in it.taken} == {newest["id"], oldest["id"]}
            await once(client, lambda h: h["pending"] == 0)
            assert (await client.get("/healthz")).json()["problems"] == []


async def test_410_is_named_by_healthz_until_it_is_enabled(tmp_path: Path) -> None:
    async with receiver() as it:
        it.answer = in_turn(Answer(410), Answer())
        hooks = config(hook=webhook(it, "token"))
        async with running(tmp_path, hooks) as appliance, appliance.client() as client:
            await happen(client, "one")
            await once(client, lambda h: h["state"] == "disabled")
            (problem,) = (await client.get("/healthz")).json()["problems"]
            assert "is disabled since" in problem
            assert problem.endswith("answered 410")
            answer = await client.post("/system/webhooks/hook/enable")
            assert answer.json() == {"name": "hook", "was_disabled": True}
            await it.took(1)
            answer = await client.post("/system/webhooks/hook/enable")
            assert answer.json() == {"name": "hook", "was_disabled": False}
            assert (await client.get("/healthz")).json()["problems"] == []


async def test_a_test_says_what_came_back(tmp_path: Path) -> None:
    async with receiver() as it:
        it.answer = in_turn(Answer(200, body=b"thanks"), Answer(404), Answer(hang=True))
        hooks = config(hook=webhook(it, timeout=0.5))
        async with running(tmp_path, hooks) as appliance, appliance.client() as client:
            path = "/system/webhooks/hook/test"
            back = (await client.post(path)).json()
            assert (back["ok"], back["status"], back["answer"]) == (True, 200, "thanks")
            back = (await client.post(path)).json()
            assert (back["ok"], back["status"], back["error"]) == (False, 404, "answered 404")
            back = (await client.post(path)).json()
            assert (back["ok"], back["status"]) == (False, None)
            assert back["error"] == "no answer within 0.5 s"


async def test_scopes(tmp_path: Path) -> None:
    async with receiver() as it:
        hooks = config(hook=webhook(it))
        async with running(tmp_path, hooks) as appliance, appliance.client() as admin:
            reader = await make_token(admin, "webhook:ro")
            keeper = await make_token(admin, "webhook:rw")
            other = await make_token(admin, "system:rw")
            reads = ["/system/webhooks", "/system/webhooks/hook/deliveries"]
            writes = [f"/system/webhooks/hook/{what}" for what in ("redrive", "enable", "test")]
            for token, may in ((reader, (200, 403)), (keeper, (200, 200)), (other, (403, 403))):
                async with appliance.client(token) as client:
                    assert {(await client.get(path)).status_code for path in reads} == {may[0]}
                    assert {(await client.post(path)).status_code for path in writes} == {may[1]}


async def test_what_is_not_there_and_what_is_no_question(shared: Appliance) -> None:
    async with shared.client() as client:
        assert (await client.get("/system/webhooks")).json() == {"webhooks": []}
        path = "/system/webhooks/nobody"
        for what in ("redrive", "enable", "test"):
            message = is_plain(await client.post(f"{path}/{what}"), 404, "not_found")
            assert "there is no webhook 'nobody'" in message
        is_plain(await client.get(f"{path}/deliveries"), 404, "not_found")
        for query in ("state=lost", "limit=0", "limit=501", "after=x", "after=-1"):
            is_plain(await client.get(f"{path}/deliveries?{query}"), 422, "invalid")
        bodies: list[Json] = [{"ids": []}, {"ids": "x"}, {"ids": [1]}]
        for body in bodies:
            is_plain(await client.post(f"{path}/redrive", json=body), 422, "invalid")


async def test_a_reload_brings_changes_and_removes_webhooks_and_shows_no_secret(
    tmp_path: Path,
) -> None:
    async with (
        receiver() as it,
        receiver() as other,
        running(tmp_path, CONFIG) as appliance,
        appliance.client() as client,
    ):
        first = webhook(it.url + "?key=hidden", "token", headers={"X-Key": "unseen"})
        appliance.write_config({"webhooks": {"hook": first}})
        shown = [await client.post("/system/reload", json={"dry": True})]
        shown.append(await client.post("/system/reload"))
        assert shown[-1].json()["changes"][0]["path"] == "webhooks.hook"
        await happen(client, "one")
        await it.took(1)
        assert it.taken[0].headers["x-key"] == "unseen"
        appliance.write_config({"webhooks": {"hook": {"url": other.url}}})
        shown.append(await client.post("/system/reload"))
        await happen(client, "two")
        await other.took(1)
        assert other.taken[0].subject == "token/two"
        shown.append(await client.get("/system/webhooks"))
        shown.append(await client.get("/system/webhooks/hook/deliveries"))
        appliance.config["webhooks"] = {}
        appliance.write_config()
        shown.append(await client.post("/system/reload"))
        assert (await hook(client))["state"] == "removed"
        is_plain(await client.post("/system/webhooks/hook/enable"), 404, "not_found")
        told = "".join(answer.text for answer in shown) + appliance.log.read_text()
        for secret in (SECRET, "unseen", "hidden"):
            assert secret not in told
        wrong = webhook(it, secret="whsec_bm90LWxvbmctZW5vdWdo")
        appliance.write_config({"webhooks": {"hook": wrong}})
        answer = await client.post("/system/reload")
        is_plain(answer, 422, "invalid")
        assert "expected 24 to 64 bytes" in answer.text
        assert "bm90LWxvbmctZW5vdWdo" not in answer.text


async def test_a_gateways_life_is_told_in_order(tmp_path: Path) -> None:
    async with receiver() as it:
        hooks = config(hook=webhook(it, "gateway/gw01"))
        async with running(tmp_path, hooks) as appliance, appliance.client() as client:
            for gw_id in ("gw01", "gw02"):
                answer = await client.post("/gateway/start", json=start_request(gw_id))
                assert answer.status_code == 200
            await client.post("/gateway/stop", json={"gw_id": "gw01"})
            await it.took(4)
            kinds = [got.json["type"].removeprefix("gateway.") for got in it.taken]
            assert kinds == ["starting", "started", "stopping", "stopped"]
