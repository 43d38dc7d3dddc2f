"""The `script` profile: a launcher of one's own, good and bad.

Each launcher is a few lines of Python written to a file; what it does is in the test.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from tests.appliance import Appliance
from tests.flows.kit import QUICK, Fleet, Json, fleet, none_left, processes_of, script

HEAD = f"#!{sys.executable}\nimport json, os, signal, sys, time\n"
SAY = "print(json.dumps({'status': 'ok', 'url': 'wss://x/' + sys.argv[1]}), flush=True)\n"
WAIT = "while True: time.sleep(60)\n"


def launcher(folder: Path, body: str, **profile: Any) -> Json:
    """A configuration whose `script` profile runs this."""
    path = script(folder / "launch", HEAD + body)
    whole = {"command": [str(path), "{gw_id}", "{room}"], **profile}
    return {"gateways": {"profiles": {"script": whole}}}


async def test_its_result_makes_it_up_and_is_in_the_status(tmp_path: Path) -> None:
    async with fleet(tmp_path, launcher(tmp_path, SAY + WAIT)) as it:
        status = await it.up("gw01", "script")
        assert json.loads(status["detail"]) == {"status": "ok", "url": "wss://x/gw01"}
        assert status["gw_state"] == "up"
        await it.down("gw01")
        await none_left(it.appliance)


async def test_it_finds_the_request_in_its_environment_and_in_a_file(tmp_path: Path) -> None:
    body = (
        "r = json.load(open('request.json'))\n"
        "print(json.dumps({'room': os.environ['GATEWAY_ROOM'], 'argument': sys.argv[2],"
        " 'extra': r['anything'], 'secret': os.environ.get('MY_SECRET')}), flush=True)\n" + WAIT
    )
    async with fleet(tmp_path, launcher(tmp_path, body)) as it:
        status = await it.up("gw01", "script", anything={"deep": [1]})
        assert json.loads(status["detail"]) == {
            "room": "test-room",
            "argument": "test-room",
            "extra": {"deep": [1]},
            "secret": None,
        }


async def test_commands_are_answered_by_their_ids_in_any_order(tmp_path: Path) -> None:
    """It answers the second command first."""
    body = SAY + (
        "held = None\n"
        "for line in sys.stdin:\n"
        "    c = json.loads(line)\n"
        "    if held is None: held = c; continue\n"
        "    for x in (c, held): print(json.dumps({'id': x['id'], 'did': x['n']}), flush=True)\n"
        "    held = None\n"
    )
    async with fleet(tmp_path, launcher(tmp_path, body)) as it:
        await it.up("gw01", "script")
        got: dict[int, Json] = {}

        async def ask(n: int) -> None:
            answer = await it.send("gw01", {"command": "any thing", "n": n})
            got[n] = answer.json()["data"]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 1)
            nursery.start_soon(ask, 2)
        assert got == {n: {"ack": True, "received": {"did": n}} for n in (1, 2)}


async def test_what_it_prints_besides_is_no_answer(tmp_path: Path) -> None:
    body = SAY + (
        "for line in sys.stdin:\n"
        "    c = json.loads(line)\n"
        "    print('log: working'); print('{broken'); print('[1]'); print('{\"id\": 7}')\n"
        "    print('{' * 3000); print(json.dumps({'id': c['id'], 'fine': True}), flush=True)\n"
    )
    async with fleet(tmp_path, launcher(tmp_path, body)) as it:
        await it.up("gw01", "script")
        answer = await it.send("gw01", {"command": "x"})
        assert answer.json()["data"]["received"] == {"fine": True}


async def failed_start(it: Fleet, gw_id: str = "gw01", main_app: str = "script") -> str:
    """A start that must fail; why, as the client is told."""
    answer = await it.start(gw_id, main_app)
    assert answer.status_code == 500, answer.text
    body = answer.json()
    assert (body["status"], body["data"]) == ("error", None)
    assert body["error"]["code"] == "start_failed"
    await it.event(gw_id, "failed")
    assert (await it.status(gw_id))["gw_state"] == "down"
    await none_left(it.appliance)
    return str(body["error"]["message"])


async def test_an_error_that_it_reports_is_why_the_start_failed(tmp_path: Path) -> None:
    body = "print(json.dumps({'status': 'error', 'error': 'no such room'}), flush=True)\n" + WAIT
    async with fleet(tmp_path, launcher(tmp_path, body)) as it:
        why = await failed_start(it)
        assert "it reported an error: no such room" in why
        assert (await it.status("gw01"))["detail"] == why


async def test_an_exit_before_it_is_ready_is_told_with_its_last_lines(tmp_path: Path) -> None:
    body = "print('one'); print('cannot open the camera', file=sys.stderr); sys.exit(7)\n"
    async with fleet(tmp_path, launcher(tmp_path, body)) as it:
        why = await failed_start(it)
        assert "exited with status 7" in why
        assert "cannot open the camera" in why


async def test_one_that_never_gets_ready_is_ended_and_told_with_its_last_lines(
    tmp_path: Path,
) -> None:
    body = "print('still looking for the stars', flush=True)\n" + WAIT
    config = launcher(tmp_path, body, ready={"when": "result", "timeout": 0.8})
    async with fleet(tmp_path, config) as it:
        why = await failed_start(it)
        assert "not ready within 0.8 s" in why
        assert "still looking for the stars" in why


@pytest.mark.parametrize(
    ("command", "why"),
    [("/no/such/program", "No such file"), ("/etc/passwd", "Permission denied")],
)
async def test_a_program_that_cannot_be_started(tmp_path: Path, command: str, why: str) -> None:
    config = {"gateways": {"profiles": {"script": {"command": [command]}}}}
    async with fleet(tmp_path, config) as it:
        assert why in await failed_start(it)


async def test_an_exit_is_mended_by_policy_and_says_why(tmp_path: Path) -> None:
    """It leaves with status 4 when told; the second run is another process of the same gateway."""
    body = SAY + "for line in sys.stdin: print('bye', flush=True); sys.exit(4)\n"
    config = launcher(tmp_path, body, restart=QUICK)
    async with fleet(tmp_path, config) as it:
        before = await it.up("gw01", "script")
        answer = await it.send("gw01", {"command": "go"})
        assert answer.status_code == 502
        died = await it.event("gw01", "died")
        assert "exited with status 4" in died["data"]["reason"]
        assert "bye" in died["data"]["reason"]
        await it.event("gw01", "started", died["seq"])
        status = await it.status("gw01")
        assert status["restarts"] == 1
        assert status["pid"] != before["pid"]
        assert it.types("gw01") == ["starting", "started", "died", "restarting", "started"]


@pytest.mark.parametrize(
    ("policy", "status", "back"),
    [
        ("permanent", 0, True),
        ("transient", 0, False),
        ("transient", 1, True),
        ("temporary", 1, False),
    ],
)
async def test_who_is_started_again(tmp_path: Path, policy: str, status: int, back: bool) -> None:
    body = SAY + f"sys.stdin.readline(); sys.exit({status})\n"
    config = launcher(tmp_path, body, restart={**QUICK, "policy": policy})
    async with fleet(tmp_path, config) as it:
        await it.up("gw01", "script")
        await it.send("gw01", {"command": "go"})
        if back:
            await it.event("gw01", "started", (await it.event("gw01", "died"))["seq"])
        else:
            await it.event("gw01", "failed")
            assert (await it.status("gw01"))["gw_state"] == "down"


async def test_one_that_crashes_in_a_loop_is_given_up_and_others_are_untouched(
    tmp_path: Path,
) -> None:
    body = SAY + "time.sleep(0.05)\nsys.exit(9)\n"
    rule = {**QUICK, "limit": 3, "seconds": 60}
    config = launcher(tmp_path, body, restart=rule)
    async with fleet(tmp_path, config) as it:
        other = await it.up("other", "baresip")
        await it.start("gw01", "script")
        failed = await it.event("gw01", "failed")
        assert "given up after 3 restarts within 60 s" in failed["data"]["reason"]
        assert "exited with status 9" in failed["data"]["reason"]
        assert it.types("gw01").count("died") == 3
        assert (await it.status("gw01"))["gw_state"] == "down"
        again = await it.status("other")
        assert (again["pid"], again["restarts"]) == (other["pid"], 0)
        # Given up is not forbidden: a person may start it again, with its tries before it.
        assert (await it.start("gw01", "script")).status_code in (200, 500)


IGNORES = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SAY + WAIT


async def test_one_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    config = launcher(tmp_path, IGNORES, stop={"grace": 0.5})
    async with fleet(tmp_path, config) as it:
        await it.up("gw01", "script")
        began = trio.current_time()
        await it.down("gw01")
        assert trio.current_time() - began >= 0.5
        await none_left(it.appliance)


async def test_a_grace_longer_than_the_answer_is_told_as_stopping(tmp_path: Path) -> None:
    config = launcher(tmp_path, IGNORES, stop={"grace": 10})
    async with fleet(tmp_path, config) as it:
        await it.up("gw01", "script")
        answer = await it.stop("gw01")
        assert answer.json()["data"] == {"processing_state": "stopping"}
        assert (await it.status("gw01"))["state"] == "stopping"
        assert (await it.send("gw01", {"command": "x"})).status_code == 403
        await it.event("gw01", "stopped")
        await none_left(it.appliance)


async def test_force_overtakes_a_graceful_stop(tmp_path: Path) -> None:
    config = launcher(tmp_path, IGNORES, stop={"grace": 30})
    async with fleet(tmp_path, config) as it:
        await it.up("gw01", "script")
        answers: list[str] = []

        async def stop(**more: Any) -> None:
            answer = await it.stop("gw01", **more)
            answers.append(answer.json()["data"]["processing_state"])

        with trio.fail_after(6):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop)
                await it.event("gw01", "stopping")
                await stop(force="true")
        assert answers == ["stopped", "stopped"]


async def test_two_stops_at_once_are_one(tmp_path: Path) -> None:
    config = launcher(tmp_path, IGNORES, stop={"grace": 0.5})
    async with fleet(tmp_path, config) as it:
        await it.up("gw01", "script")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.down, "gw01")
            nursery.start_soon(it.down, "gw01")
        await it.down("gw01")
        await it.event("gw01", "stopped")
        assert it.types("gw01") == ["starting", "started", "stopping", "stopped"]


SLOW = "time.sleep(1.5)\n" + SAY + WAIT


async def test_a_stop_during_a_start_wins(tmp_path: Path) -> None:
    async with fleet(tmp_path, launcher(tmp_path, SLOW)) as it:
        async with trio.open_nursery() as nursery:

            async def start() -> None:
                answer = await it.start("gw01", "script")
                assert answer.status_code == 500
                assert answer.json()["error"]["message"] == "it was stopped while it started"

            nursery.start_soon(start)
            await it.event("gw01", "starting")
            await it.down("gw01")
        assert (await it.status("gw01"))["gw_state"] == "down"
        await it.event("gw01", "stopped")
        assert it.types("gw01") == ["starting", "stopping", "stopped"]
        await none_left(it.appliance)


async def test_a_forced_stop_in_the_moment_of_the_start(tmp_path: Path) -> None:
    """Before there is a process to kill: nothing may be left over."""
    async with fleet(tmp_path, launcher(tmp_path, SLOW)) as it:
        for i in range(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(it.start, f"gw{i}", "script")
                await it.event(f"gw{i}", "starting")
                await it.down(f"gw{i}", force=True)
        await none_left(it.appliance)


async def test_a_start_during_a_stop_waits_and_then_is_up(tmp_path: Path) -> None:
    config = launcher(tmp_path, IGNORES, stop={"grace": 0.8})
    async with fleet(tmp_path, config) as it:
        first = await it.up("gw01", "script")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.down, "gw01")
            await it.event("gw01", "stopping")
            second = await it.up("gw01", "script")
        assert second["gw_state"] == "up"
        assert second["pid"] != first["pid"]
        assert len(ours(it.appliance)) == 1


async def test_a_stop_overtakes_a_start_that_waits_for_a_stop(tmp_path: Path) -> None:
    config = launcher(tmp_path, IGNORES, stop={"grace": 1.0})
    async with fleet(tmp_path, config) as it:
        await it.up("gw01", "script")
        codes: list[int] = []

        async def start() -> None:
            codes.append((await it.start("gw01", "script")).status_code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.down, "gw01")
            await it.event("gw01", "stopping")
            nursery.start_soon(start)
            # Waiting is seen by nobody: the queued start is the one message before this answer.
            await it.status("gw01")
            await trio.sleep(0.2)
            await it.down("gw01")
        assert codes == [500]
        assert (await it.status("gw01"))["gw_state"] == "down"
        await none_left(it.appliance)


async def test_of_two_starts_at_once_one_wins(tmp_path: Path) -> None:
    async with fleet(tmp_path, launcher(tmp_path, SLOW)) as it:
        codes: list[int] = []

        async def start() -> None:
            answer = await it.start("gw01", "script")
            codes.append(answer.status_code)
            if answer.status_code == 409:
                assert answer.json()["error"]["code"] == "already_running"

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(start)
        assert sorted(codes) == [200, 409, 409]
        assert len(ours(it.appliance)) == 1


async def test_the_same_start_twice_under_one_key_is_one(tmp_path: Path) -> None:
    async with fleet(tmp_path, launcher(tmp_path, SLOW)) as it:
        answers: list[tuple[int, str]] = []

        async def start() -> None:
            answer = await it.start("gw01", "script", key="k-1")
            answers.append((answer.status_code, answer.text))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            nursery.start_soon(start)
        await start()
        assert len(set(answers)) == 1
        assert answers[0][0] == 200
        assert it.types("gw01").count("starting") == 1
        assert len(ours(it.appliance)) == 1
        answer = await it.start("gw01", "script", key="k-1", from_id="another")
        assert answer.status_code == 409


async def test_no_more_of_a_profile_than_its_limit_also_after_a_restart(tmp_path: Path) -> None:
    config = launcher(tmp_path, SAY + WAIT, limits={"instances": 2})
    async with fleet(tmp_path, config) as it:
        await it.up("a", "script")
        await it.up("b", "script")
        assert (await it.start("c", "script")).status_code == 503
        await it.appliance.restart()
        async with Fleet(it.appliance) as again:
            await again.is_("a", gw_state="up")
            assert (await again.start("c", "script")).status_code == 503
            await again.down("a")


async def test_running_for_a_while_counts_as_ready_where_the_profile_says_so(
    tmp_path: Path,
) -> None:
    config = launcher(tmp_path, WAIT, ready={"when": "running", "seconds": 0.3})
    async with fleet(tmp_path, config) as it:
        began = trio.current_time()
        await it.up("gw01", "script")
        assert trio.current_time() - began >= 0.3
        script(tmp_path / "launch", HEAD + "print('no'); sys.exit(1)\n")
        assert (await it.start("gw02", "script")).status_code == 500


async def test_the_restart_limit_is_the_profiles_after_a_restart_too(tmp_path: Path) -> None:
    body = SAY + "sys.stdin.readline(); sys.exit(1)\n"
    config = launcher(tmp_path, body, restart={**QUICK, "limit": 1})
    async with fleet(tmp_path, config) as it:
        await it.up("gw01", "script")
        await it.appliance.restart()
        async with Fleet(it.appliance) as again:
            after = (await again.event("gw01", "restarting"))["seq"]
            after = (await again.event("gw01", "started", after))["seq"]
            await again.send("gw01", {"command": "go"})
            died = await again.event("gw01", "died", after)
            await again.event("gw01", "started", died["seq"])
            await again.send("gw01", {"command": "go"})
            failed = await again.event("gw01", "failed")
            assert "given up after 1 restarts" in failed["data"]["reason"]


async def test_a_gateway_that_was_put_away_is_still_known_and_may_come_back(
    tmp_path: Path,
) -> None:
    config = launcher(tmp_path, SAY + WAIT)
    config["gateways"]["linger"] = 0.1
    async with fleet(tmp_path, config) as it:
        for _ in range(3):
            await it.up("gw01", "script")
            await it.down("gw01")
            with trio.fail_after(10):
                while "gw01" in (await it.client.get("/system/tree")).text:
                    await trio.sleep(0.05)
            assert (await it.status("gw01"))["gw_state"] == "down"
            await it.down("gw01")
            assert (await it.send("gw01", {"command": "x"})).status_code == 403
        assert (await it.client.get("/gateway/status?gw_id=gw02")).status_code == 404


@pytest.mark.soak
async def test_an_earlier_stops_patience_does_not_end_a_later_ones(tmp_path: Path) -> None:
    """A client is told `stopping` after its own eight seconds, not after somebody else's."""
    config = launcher(tmp_path, SAY + WAIT, stop={"grace": 4})
    async with fleet(tmp_path, config) as it:
        await it.up("gw01", "script")
        began = trio.current_time()
        await it.down("gw01")
        script(tmp_path / "launch", HEAD + IGNORES)
        await it.up("gw01", "script")
        await trio.sleep_until(began + 6)
        await it.down("gw01")


def ours(appliance: Appliance) -> list[psutil.Process]:
    """Launchers that run now: by their working folder."""
    return processes_of(appliance)
