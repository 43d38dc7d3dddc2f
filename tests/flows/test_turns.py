"""Launches that are not wanted any more when their turn comes, and those that a reload overtakes.

A start here is held up by a file: the gateway gets ready when the test makes it.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import trio

from tests.api.kit import PROFILES
from tests.flows.kit import Fleet, Json, fleet

# Ready when the file of the request's `gate` is there; `V` is only there to be changed.
HELD = 'echo "v=$V"; until [ -e "$GATEWAY_GATE" ]; do sleep 0.02; done; echo ready; exec sleep 1000'
# Not to be ended by asking.
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
HELD_PROFILES: Json = {
    **PROFILES,
    "held": {
        "command": ["sh", "-c", HELD],
        "env": {"V": "1"},
        "ready": {"when": "line", "pattern": "^ready", "timeout": 30},
        "stop": {"grace": 2},
    },
    "stubborn": {
        "command": ["sh", "-c", STUBBORN],
        "env": {"V": "1"},
        "ready": {"when": "line", "pattern": "^ready", "timeout": 10},
        "stop": {"grace": 2},
    },
}
ONE_AT_ONCE: Json = {"gateways": {"profiles": HELD_PROFILES, "starting_at_once": 1, "linger": 0.3}}


def processes(it: Fleet, gw_id: str) -> list[psutil.Process]:
    """The group leaders that run for a gateway."""
    folder = str(it.appliance.folder / "gateways" / gw_id)
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            leads = process.status() != psutil.STATUS_ZOMBIE and process.ppid() == it.appliance.pid
            if leads and process.cwd() == folder:
                found.append(process)
    return found


async def launched(it: Fleet, gw_id: str) -> psutil.Process:
    """Its process, as soon as there is one, ready or not."""
    with trio.fail_after(10):
        while not (found := processes(it, gw_id)):
            await trio.sleep(0.02)
    return found[0]


class Asked:
    """A start under way."""

    def __init__(self, it: Fleet, nursery: trio.Nursery, gw_id: str, main_app: str, gate: Path):
        self._done = trio.Event()
        self._answer: httpx.Response | None = None
        nursery.start_soon(self._ask, it, gw_id, main_app, gate)

    async def _ask(self, it: Fleet, gw_id: str, main_app: str, gate: Path) -> None:
        self._answer = await it.start(gw_id, main_app, gate=str(gate))
        self._done.set()

    async def answer(self) -> httpx.Response:
        with trio.fail_after(20):
            await self._done.wait()
        assert self._answer is not None
        return self._answer


async def test_a_start_that_is_stopped_while_it_waits_for_its_turn_never_launches(
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    async with fleet(tmp_path, ONE_AT_ONCE) as it, trio.open_nursery() as nursery:
        first = Asked(it, nursery, "first", "held", gate)
        await launched(it, "first")
        waiting = Asked(it, nursery, "ghost", "plain", gate)
        await it.event("ghost", "starting")
        for force in (False, True):
            await it.down("ghost", force=force)
        assert (await waiting.answer()).status_code == 500
        after = Asked(it, nursery, "after", "plain", gate)
        await it.event("after", "starting")
        gate.touch()
        # The turns are given in order: when this one had its own, the ghost had its before.
        assert (await first.answer()).status_code == 200
        assert (await after.answer()).status_code == 200
        status = await it.status("ghost")
        assert (status["state"], status["pid"]) == ("down", None)
        assert processes(it, "ghost") == []
        assert it.types("ghost")[-1] == "stopped"
        assert "started" not in it.types("ghost")

        status = await it.up("ghost", "plain")
        assert [p.pid for p in processes(it, "ghost")] == [status["pid"]]
        await it.down("ghost")
        assert processes(it, "ghost") == []


async def test_a_start_that_overtakes_its_own_stop_runs_once(tmp_path: Path) -> None:
    """Stopped and started again, all while it waits for its turn."""
    gate = tmp_path / "gate"
    async with fleet(tmp_path, ONE_AT_ONCE) as it, trio.open_nursery() as nursery:
        first = Asked(it, nursery, "first", "held", gate)
        await launched(it, "first")
        refused = Asked(it, nursery, "again", "plain", gate)
        begun = (await it.event("again", "starting"))["seq"]
        await it.down("again")
        wanted = Asked(it, nursery, "again", "plain", gate)
        await it.event("again", "starting", begun)
        gate.touch()
        assert (await refused.answer()).status_code == 500
        assert (await first.answer()).status_code == 200
        assert (await wanted.answer()).status_code == 200
        pid = (await it.status("again"))["pid"]
        assert [p.pid for p in processes(it, "again")] == [pid]
        assert it.types("again").count("started") == 1


# -- a profile that changes -------------------------------------------------------------


async def new_profile(it: Fleet, name: str) -> None:
    """Change a profile in what its gateways are started with."""
    it.appliance.write_config({"gateways": {"profiles": {name: {"env": {"V": "2"}}}}})
    answer = await it.client.post("/system/reload")
    assert answer.status_code == 200, answer.text
    assert answer.json()["applied"] is True


async def test_a_stop_during_a_replacement_answers_when_the_old_process_is_gone(
    tmp_path: Path,
) -> None:
    """Patiently and by force; what is started afterwards is alone."""
    async with fleet(tmp_path, ONE_AT_ONCE) as it:
        for turn, force in enumerate((False, True)):
            old = (await it.up("gw", "stubborn"))["pid"]
            before = it.head
            it.appliance.write_config(
                {"gateways": {"profiles": {"stubborn": {"env": {"V": f"turn {turn}"}}}}}
            )
            assert (await it.client.post("/system/reload")).json()["applied"] is True
            await it.event("gw", "restarting", before)
            assert psutil.pid_exists(old)
            await it.down("gw", force=force)
            assert not psutil.pid_exists(old)
            status = await it.status("gw")
            assert (status["state"], status["pid"]) == ("down", None)
            new = (await it.up("gw", "stubborn"))["pid"]
            assert [p.pid for p in processes(it, "gw")] == [new]
            await it.down("gw", force=True)
            assert processes(it, "gw") == []


async def test_a_profile_that_changes_during_a_start_is_applied_when_it_is_up(
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    async with fleet(tmp_path, ONE_AT_ONCE) as it, trio.open_nursery() as nursery:
        start = Asked(it, nursery, "gw", "held", gate)
        old = await launched(it, "gw")
        assert old.environ()["V"] == "1"
        await new_profile(it, "held")
        assert old.is_running()
        gate.touch()
        assert (await start.answer()).status_code == 200
        renewed = await it.event("gw", "restarting")
        assert renewed["data"]["reason"] == "its profile was changed"
        await it.event("gw", "started", renewed["seq"])
        (now,) = processes(it, "gw")
        assert now.pid != old.pid
        assert now.environ()["V"] == "2"
        assert (await it.status("gw"))["restarts"] == 0
        now.send_signal(signal.SIGKILL)
        await it.event("gw", "died")
