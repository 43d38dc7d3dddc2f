"""A reload applies the difference and nothing else; a bad file changes nothing."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import trio
from trio_websocket import WebSocketConnection

from tests.api.kit import CONFIG, is_plain, start_request
from tests.appliance import ROOT, Appliance, laid_over, ports, running


async def heard(watcher: WebSocketConnection, *types: str) -> dict[str, Any]:
    """The next event of one of these types."""
    with trio.fail_after(10):
        while True:
            found: dict[str, Any] = json.loads(await watcher.get_message())
            if found["type"] in types:
                return found


def answers_at(address: str) -> bool:
    """Does somebody answer there?"""
    try:
        return httpx.get(f"http://{address}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


async def reload(appliance: Appliance, **body: Any) -> httpx.Response:
    async with appliance.client() as client:
        return await client.post("/system/reload", json=body)


async def test_without_a_change_nothing_is_done(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance, appliance.client() as client:
        head = (await client.get("/version")).json()["head"]
        answer = await client.post("/system/reload")
        assert answer.json() == {"applied": True, "changes": []}
        assert (await client.get("/version")).json()["head"] == head


async def test_addresses_come_and_go_and_what_stays_is_not_touched(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance, appliance.ws() as watcher:
        first, second = appliance.address, f"127.0.0.1:{ports()}"
        for bind in ([first, second], [first], [first, second]):
            appliance.write_config({"server": {"bind": bind}})
            answer = await reload(appliance)
            (change,) = answer.json()["changes"]
            assert (change["path"], change["new"]) == ("server.bind", bind)
            event = await heard(watcher, "config.reloaded", "config.refused")
            assert event["data"]["changes"][0]["path"] == "server.bind"
            assert answers_at(first)
            assert answers_at(second) == (second in bind)


async def test_a_connection_outlives_the_address_it_came_by(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance:
        old, new = appliance.address, f"127.0.0.1:{ports()}"
        async with appliance.ws() as watcher:
            appliance.write_config({"server": {"bind": [new]}})
            async with httpx.AsyncClient(trust_env=False) as client:
                headers = {"X-API-Key": appliance.token}
                answer = await client.post(f"http://{old}/system/reload", headers=headers)
            assert answer.status_code == 200
            await heard(watcher, "config.reloaded")
            assert not answers_at(old)
            assert answers_at(new)
            await watcher.send_message('{"id":1,"method":"GET","path":"/health"}')
            assert json.loads(await watcher.get_message())["status"] == 200


async def test_a_hangup_signal_reloads(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance, appliance.ws() as watcher:
        appliance.write_config({"log": {"level": "debug"}})
        appliance.signal(signal.SIGHUP)
        event = await heard(watcher, "config.reloaded")
        assert event["data"] == {"changes": [{"path": "log.level", "effect": "at once"}]}
        appliance.config_file.write_text("nonsense: 1\n")
        appliance.signal(signal.SIGHUP)
        event = await heard(watcher, "config.refused")
        assert "unknown key" in event["data"]["problems"][0]
        async with appliance.client() as client:
            assert (await client.get("/readyz")).status_code == 200


async def test_a_bad_file_changes_nothing_and_is_told_with_all_its_problems(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, CONFIG) as appliance, appliance.ws() as watcher:
        appliance.config_file.write_text("limits: {body: many}\nlog: {levle: debug}\n")
        answer = await reload(appliance)
        is_plain(answer, 422, "invalid")
        problems = answer.json()["error"]["details"]["problems"]
        assert problems == [
            f"{appliance.config_file}:1: limits.body: expected a whole number, got: 'many'",
            f"{appliance.config_file}:2: log.levle: unknown key; did you mean 'level'?",
        ]
        event = await heard(watcher, "config.refused")
        assert event["data"] == {"problems": problems}
        assert answers_at(appliance.address)


async def test_an_address_in_use_refuses_the_whole(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance, appliance.ws() as watcher:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            free, used = f"127.0.0.1:{ports()}", f"127.0.0.1:{taken.getsockname()[1]}"
            bind = [appliance.address, free, used]
            appliance.write_config({"server": {"bind": bind}, "limits": {"body": 10}})
            assert used in is_plain(await reload(appliance), 409, "conflict")
            assert used in (await heard(watcher, "config.refused"))["data"]["problems"][0]
            assert not answers_at(free)
        # Nothing of it is in force: neither the address nor the limit.
        assert (await reload(appliance, dry=True)).json()["changes"] != []
        assert (await reload(appliance)).json()["applied"] is True
        assert answers_at(free)
        is_plain(await reload(appliance, dry=True), 413, "too_large")


async def test_a_dry_run_says_what_would_change_and_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance, appliance.client() as client:
        appliance.write_config({"limits": {"body": 4}, "state": "elsewhere"})
        head = (await client.get("/version")).json()["head"]
        answer = (await client.post("/system/reload", json={"dry": True})).json()
        assert answer["applied"] is False
        changes = {change["path"]: change for change in answer["changes"]}
        assert changes["limits.body"]["old"] == 1048576
        assert changes["limits.body"]["new"] == 4
        assert "needs a restart" in changes["state"]["effect"]
        assert (await client.get("/version")).json()["head"] == head
        appliance.config_file.write_text("nonsense: 1\n")
        is_plain(await client.post("/system/reload", json={"dry": True}), 422, "invalid")
        assert (await client.get("/version")).json()["head"] == head


async def test_tokens_of_the_file_come_and_go(tmp_path: Path) -> None:
    token = "a-token-of-the-file-itself"
    entry = {"name": "proxy", "token": token, "scopes": ["system:ro"]}
    async with running(tmp_path, CONFIG) as appliance, appliance.client(token=token) as client:
        for tokens, status in (([], 401), ([entry], 200), ([], 401)):
            appliance.write_config({"auth": {"tokens": tokens}})
            answer = await reload(appliance)
            assert token not in answer.text
            assert (await client.get("/system/tree")).status_code == status


async def test_gateways_of_other_profiles_keep_their_processes(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance, appliance.client() as client:

        async def pid(gw_id: str) -> int | None:
            view = (await client.get(f"/gateway/status?gw_id={gw_id}")).json()["data"]
            return int(view["pid"]) if view["pid"] and view["gw_state"] == "up" else None

        for gw_id, kind in (("stays", "echo"), ("moves", "plain")):
            answer = await client.post("/gateway/start", json=start_request(gw_id, kind))
            assert answer.status_code == 200
        before = {gw_id: await pid(gw_id) for gw_id in ("stays", "moves")}
        appliance.write_config(
            {"gateways": {"profiles": {"plain": {"command": ["sleep", "2000"]}}}}
        )
        assert (await reload(appliance)).status_code == 200
        with trio.fail_after(10):
            while (after := await pid("moves")) in (None, before["moves"]):
                await trio.sleep(0.02)
        assert after is not None
        assert psutil.Process(after).cmdline() == ["sleep", "2000"]
        assert await pid("stays") == before["stays"]


async def test_reloads_under_load_break_no_request(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance:
        extra = f"127.0.0.1:{ports()}"
        over, done = trio.Event(), 0

        async def ask() -> None:
            nonlocal done
            async with appliance.client() as client:
                while not over.is_set():
                    answer = await client.get("/gateway/status?gw_id=never-was")
                    assert answer.status_code == 404
                    done += 1

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
            for turn in range(6):
                bind = [appliance.address, extra] if turn % 2 else [appliance.address]
                change = {"server": {"bind": bind}, "limits": {"body": 100_000 + turn}}
                appliance.config_file.write_text(json.dumps(laid_over(appliance.config, change)))
                assert (await reload(appliance)).json()["applied"] is True
            over.set()
        assert done > 20


async def test_the_command_reloads(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance:
        appliance.write_config({"limits": {"body": 4000}})
        command = [
            sys.executable,
            "-m",
            "api.cli",
            "reload",
            "--config",
            str(appliance.config_file),
        ]
        done = await trio.run_process(
            command, cwd=ROOT, capture_stdout=True, stdin=subprocess.DEVNULL
        )
        assert done.stdout.decode() == "limits.body: at once\n"
