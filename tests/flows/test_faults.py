"""The faults that the fleet is built for, each by itself, with the real baresip.

Nothing here waits for a time to pass but where the time is the fault: what happened is seen in the
log of events, in a status, or in the list of the system's processes.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import trio

from config.load import load
from tests.appliance import ports as unused
from tests.flows.disk import OnSmallDisk
from tests.flows.kit import (
    QUICK,
    WATCH,
    Fleet,
    Json,
    dominant,
    fleet,
    none_left,
    processes_of,
    profiles,
)

PACKAGED = load(None).gateways.profiles
WATCHED = profiles(
    baresip={"watch": WATCH, "restart": QUICK}, recording={"watch": WATCH, "restart": QUICK}
)


def many(count: int, config: Json | None = None) -> Json:
    """Room for so many gateways, and a configuration."""
    first = unused(9 * count)
    gateways = {
        **(config or {}).get("gateways", {}),
        "ports": {
            "sip": {"first": first, "last": first + 2 * count - 1},
            "control": {"first": first + 2 * count, "last": first + 3 * count - 1},
            "rtp": {"first": first + 3 * count, "last": first + 9 * count - 1},
            "rtp_per_gateway": 6,
        },
    }
    return {**(config or {}), "gateways": gateways}


def by_gateway(it: Fleet) -> dict[str, list[psutil.Process]]:
    """The baresips that run, by their gateway."""
    found: dict[str, list[psutil.Process]] = {}
    for process in processes_of(it.appliance, "baresip"):
        with suppress(psutil.NoSuchProcess):
            found.setdefault(Path(process.cmdline()[-1]).name, []).append(process)
    return found


# -- the appliance is killed ------------------------------------------------------------


class Storm:
    """Starts and stops at once, and what was acknowledged of them."""

    def __init__(self, it: Fleet) -> None:
        self.it = it
        self.acknowledged: dict[str, str] = {}
        self.under_way: set[str] = set()
        self.count = 0
        self.more = trio.Event()

    async def start(self, gw_id: str) -> None:
        await self._ask(gw_id, "up", self.it.start(gw_id, "baresip"))

    async def stop(self, gw_id: str) -> None:
        await self._ask(gw_id, "down", self.it.stop(gw_id))

    async def _ask(self, gw_id: str, state: str, request: Any) -> None:
        self.under_way.add(gw_id)
        try:
            answer = await request
        except httpx.HTTPError:
            return  # the appliance was killed: nobody knows, both are right
        if answer.status_code == 200 and answer.json()["data"]["processing_state"] != "stopping":
            self.under_way.discard(gw_id)
            self.acknowledged[gw_id] = state
            self.count += 1
            self.more.set()
            self.more = trio.Event()

    async def reach(self, count: int) -> None:
        while self.count < count:
            await self.more.wait()


async def killed_in_a_storm(it: Fleet, size: int, kill_after: int) -> None:
    """Half of them are up; then half start and half stop at once, and the power goes."""
    storm = Storm(it)
    async with trio.open_nursery() as nursery:
        for i in range(size // 2):
            nursery.start_soon(storm.start, f"g{i:02d}")
    before = {p.pid for ps in by_gateway(it).values() for p in ps}
    assert len(before) == size // 2

    async with trio.open_nursery() as nursery:
        for i in range(size // 2):
            nursery.start_soon(storm.stop, f"g{i:02d}")
            nursery.start_soon(storm.start, f"g{i + size // 2:02d}")
        await storm.reach(size // 2 + kill_after)
        before |= {p.pid for ps in by_gateway(it).values() for p in ps}
        await it.appliance.kill9()
    seen = list(it.events)
    old = {p for p in before if psutil.pid_exists(p)}

    await it.appliance.start()
    # Started again, so whatever of the earlier boot is not gone now stays for good.
    assert not {p.pid for ps in by_gateway(it).values() for p in ps} & old
    async with Fleet(it.appliance) as again:
        await everything_settled(again)
        for gw_id, state in storm.acknowledged.items():
            if gw_id not in storm.under_way:
                status = await again.status(gw_id)
                assert status["gw_state"] == state, (gw_id, status)
        await again.until(lambda e: e["seq"] >= seen[-1]["seq"], 0, "event of before")
        kept = {e["seq"]: e for e in again.events}
        assert [kept[e["seq"]] for e in seen] == seen
        assert sorted(kept) == list(range(1, len(kept) + 1))

        runs = by_gateway(again)
        answer = await again.client.get("/gateway/list?limit=500")
        for gateway in answer.json()["data"]["gateways"]:
            expected = 1 if gateway["gw_state"] == "up" else 0
            assert len(runs.get(gateway["gw_id"], [])) == expected, gateway
            await again.down(gateway["gw_id"], force=True)
        await none_left(again.appliance, "baresip")


async def everything_settled(it: Fleet) -> None:
    """Wait until every gateway is up or down."""
    with trio.fail_after(40):
        while True:
            answer = await it.client.get("/gateway/list?limit=500")
            states = {g["state"] for g in answer.json()["data"]["gateways"]}
            if states <= {"up", "down"}:
                return
            await trio.sleep(0.1)


async def test_kill_9_during_fifty_starts_and_stops(tmp_path: Path) -> None:
    """What was acknowledged is there afterwards, and nothing runs twice or is left over."""
    async with fleet(tmp_path, many(50)) as it:
        await killed_in_a_storm(it, 50, kill_after=20)


@pytest.mark.soak
@pytest.mark.parametrize("kill_after", range(0, 50, 5))
async def test_kill_9_at_many_moments(tmp_path: Path, kill_after: int) -> None:
    async with fleet(tmp_path, many(50)) as it:
        await killed_in_a_storm(it, 50, kill_after)


async def test_sigterm_during_starts_and_stops(tmp_path: Path) -> None:
    """It ends with status 0 within its grace; what was up is up again after the next start."""
    async with fleet(tmp_path, many(24)) as it:
        storm = Storm(it)
        async with trio.open_nursery() as nursery:
            for i in range(12):
                nursery.start_soon(storm.start, f"g{i:02d}")
        async with trio.open_nursery() as nursery:
            for i in range(6):
                nursery.start_soon(storm.stop, f"g{i:02d}")
                nursery.start_soon(storm.start, f"g{i + 12:02d}")
            await storm.reach(15)
            assert await it.appliance.stop() == 0
        await none_left(it.appliance)
        await it.appliance.start()
        async with Fleet(it.appliance) as again:
            await everything_settled(again)
            for i in range(6, 12):
                assert (await again.status(f"g{i:02d}"))["gw_state"] == "up"
            for gw_id, state in storm.acknowledged.items():
                if gw_id not in storm.under_way:
                    assert (await again.status(gw_id))["gw_state"] == state, gw_id


async def test_a_call_that_kill_9_cut_off_is_recorded_up_to_there(tmp_path: Path) -> None:
    async with fleet(tmp_path, WATCHED) as it:
        await calling(it)
        await it.is_("gw01", recording_duration="00:00:02")
        await it.appliance.kill9()
        await it.appliance.start()
        async with Fleet(it.appliance) as again:
            done = (await again.event("gw01", "recording_finished"))["data"]
            assert done["seconds"] >= 2
            (path,) = again.recordings("gw01")
            assert abs(dominant(path) - 440) <= 20
            await again.is_("gw01", gw_state="up")


async def test_an_orderly_stop_tells_the_end_of_each_call(tmp_path: Path) -> None:
    """And its recording is finished after the next start."""
    async with fleet(tmp_path, WATCHED) as it:
        await calling(it)
        await it.is_("gw01", recording_duration="00:00:01")
        await it.appliance.restart()
        async with Fleet(it.appliance) as again:
            started = await again.event("gw01", "restarting")
            for end in ("gw01", "caller"):
                closed = await again.event(end, "call_closed")
                assert closed["data"]["reason"]
                assert closed["seq"] < started["seq"]
            done = (await again.event("gw01", "recording_finished"))["data"]
            assert done["seconds"] >= 1


@pytest.mark.soak
async def test_five_hundred_cycles_leave_nothing(tmp_path: Path) -> None:
    async with fleet(tmp_path, many(8), within=600) as it:
        for i in range(500):
            await it.up(f"g{i % 8}", "baresip")
            await it.down(f"g{i % 8}", force=bool(i % 2))
        await none_left(it.appliance)
        assert psutil.Process(it.appliance.pid).num_fds() < 100


# -- a gateway's process ----------------------------------------------------------------


async def calling(it: Fleet, main_app: str = "recording") -> None:
    """gw01, called by another."""
    sip = (await it.up("gw01", main_app))["sip"]
    await it.up("caller", "baresip", dial=sip)
    await it.event("gw01", "call_established")
    await it.event("caller", "call_established")


@pytest.mark.parametrize(
    ("number", "why"),
    [(signal.SIGKILL, "ended by SIGKILL"), (signal.SIGSTOP, "does not answer")],
    ids=["SIGKILL", "SIGSTOP"],
)
async def test_a_process_that_dies_or_freezes_is_started_again(
    tmp_path: Path, number: signal.Signals, why: str
) -> None:
    """It keeps its id and its SIP port, and says why; its call is over, and is told so."""
    async with fleet(tmp_path, WATCHED) as it:
        await calling(it)
        before = await it.status("gw01")
        os.kill(before["pid"], number)
        died = await it.event("gw01", "died")
        assert why in died["data"]["reason"]
        closed = await it.event("gw01", "call_closed")
        assert closed["data"]["reason"] == "the gateway ended"
        await it.event("gw01", "started", died["seq"])
        after = await it.status("gw01")
        assert (after["sip"], after["restarts"], after["calls"]) == (before["sip"], 1, [])
        assert after["pid"] != before["pid"]
        assert not psutil.pid_exists(before["pid"])
        await it.event("gw01", "recording_finished")
        assert (await it.send("gw01", {"action": "ping"})).status_code == 200


async def test_a_baresip_with_the_wrong_sound_format(tmp_path: Path) -> None:
    """It never answers a call; the caller is told when it gives up, and it stays manageable."""
    text = PACKAGED["baresip"].files["config"].replace("ausrc_srate 48000", "ausrc_srate 8000")
    assert "ausrc_srate 8000" in text
    config = profiles(recording={"files": {"config": text}}, baresip={"watch": WATCH})
    async with fleet(tmp_path, config) as it:
        sip = (await it.up("gw01", "recording"))["sip"]
        await it.up("caller", "baresip", dial=sip)
        with trio.move_on_after(2):
            await it.event("caller", "call_established")
        await it.command("caller", "endCall")
        await it.event("caller", "call_closed")
        for end in ("caller", "gw01"):
            assert "call_established" not in it.types(end)
        assert (await it.send("gw01", {"action": "ping"})).status_code == 200
        assert (await it.status("gw01"))["restarts"] == 0
        await it.down("gw01")


# -- ports ------------------------------------------------------------------------------


def held(port: int, kind: socket.SocketKind) -> socket.socket:
    """A port, taken by somebody else."""
    taken = socket.socket(socket.AF_INET, kind)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))
    if kind is socket.SOCK_STREAM:
        taken.listen()
    return taken


KINDS = pytest.mark.parametrize(
    ("which", "kind"),
    [("sip", socket.SOCK_DGRAM), ("control", socket.SOCK_STREAM), ("rtp", socket.SOCK_DGRAM)],
    ids=["sip", "control", "rtp"],
)


@KINDS
async def test_a_port_that_is_taken_before_the_start(
    tmp_path: Path, which: str, kind: socket.SocketKind
) -> None:
    config = many(3)
    with closing(held(config["gateways"]["ports"][which]["first"], kind)):
        async with fleet(tmp_path, config) as it:
            status = await it.up("gw01", "baresip")
            first = config["gateways"]["ports"]["sip"]["first"]
            assert status["sip"].endswith(f":{first + 2}")
            assert (await it.send("gw01", {"action": "ping"})).status_code == 200


@KINDS
async def test_a_port_that_is_taken_between_a_crash_and_the_restart(
    tmp_path: Path, which: str, kind: socket.SocketKind
) -> None:
    slow = {"backoff_first": 1.0, "backoff_cap": 1.0}
    config = many(3, profiles(baresip={"restart": slow, "watch": WATCH}))
    async with fleet(tmp_path, config) as it:
        before = await it.up("gw01", "baresip")
        os.kill(before["pid"], signal.SIGKILL)
        died = await it.event("gw01", "died")
        with closing(held(config["gateways"]["ports"][which]["first"], kind)):
            await it.event("gw01", "started", died["seq"])
            after = await it.status("gw01")
            # RTP ports are a range: it takes another of its own. The others are one each.
            assert (after["sip"] == before["sip"]) == (which == "rtp")
            await it.up("caller", "baresip", dial=after["sip"])
            await it.event("gw01", "call_established")


async def test_all_ports_in_use(tmp_path: Path) -> None:
    async with fleet(tmp_path, many(1)) as it:
        await it.up("gw01", "baresip")
        answer = await it.start("gw02", "baresip")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_ports")
        assert answer.headers["retry-after"]


# -- the disk ---------------------------------------------------------------------------


class SmallDisk(Fleet):
    """An appliance whose state is on a disk of a few megabytes, in a mount namespace of its own."""

    @property
    def state(self) -> Path:
        """The state folder, as the appliance sees it."""
        return Path(f"/proc/{self.appliance.pid}/root{self.appliance.folder}")

    def fill(self) -> None:
        """Use up the disk."""
        with suppress(OSError), (self.state / "filler").open("wb", 0) as file:
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        (self.state / "filler").unlink()


@asynccontextmanager
async def small_disk(tmp_path: Path, config: Json | None = None) -> AsyncIterator[SmallDisk]:
    appliance = OnSmallDisk(tmp_path / "appliance", config)
    with trio.fail_after(90):
        try:
            await appliance.start()
            async with SmallDisk(appliance) as it:
                yield it
        finally:
            await appliance.end()


async def test_a_disk_that_is_full_refuses_a_start_and_recovers(tmp_path: Path) -> None:
    async with small_disk(tmp_path) as it:
        before = await it.up("gw01", "baresip")
        it.fill()
        codes = set()
        for i in range(20):  # what is left inside the database's own pages may take some
            codes.add((await it.start(f"full{i}", "baresip")).status_code)
            if codes & {500, 507}:
                break
        assert codes & {500, 507}
        assert codes <= {200, 500, 507}
        status = await it.status("gw01")
        assert (status["pid"], status["gw_state"]) == (before["pid"], "up")
        assert (await it.send("gw01", {"action": "ping"})).status_code == 200
        it.free()
        with trio.fail_after(20):
            while (await it.start("after", "baresip")).status_code != 200:
                await trio.sleep(0.2)
        await it.down("gw01")
        runs = by_gateway(it)
        assert "gw01" not in runs
        for gw_id, processes in runs.items():
            assert len(processes) == 1
            assert (await it.status(gw_id))["gw_state"] == "up"


async def test_a_disk_that_fills_up_while_recording(tmp_path: Path) -> None:
    """The call goes on, commands are carried out, and what was recorded is kept."""
    async with small_disk(tmp_path, WATCHED) as it:
        await calling(it)
        await it.is_("gw01", recording_duration="00:00:02")
        it.fill()
        assert (await it.send("caller", {"command": "sendKey", "param1": "1"})).status_code == 200
        answer = await it.send("gw01", {"command": "callstat"})
        assert answer.status_code == 200
        assert (await it.status("gw01"))["gw_state"] == "up"
        await it.command("caller", "endCall")
        await it.is_("gw01", calls=[])
        it.free()
        # The next thing that finishes recordings finds what could not be finished.
        with trio.fail_after(20):
            while (await it.stop("gw01")).status_code != 200:
                await trio.sleep(0.2)
        done = (await it.event("gw01", "recording_finished"))["data"]
        assert done["seconds"] >= 2
        # Also the end of the call, which the disk may have refused when it came.
        await it.event("gw01", "call_closed")
        assert it.types("gw01").count("call_closed") == 1


# -- the configuration ------------------------------------------------------------------


async def reload(it: Fleet, change: Json) -> None:
    it.appliance.write_config(change)
    answer = await it.client.post("/system/reload", json={})
    assert answer.status_code == 200, answer.text


async def test_a_changed_profile_reaches_its_gateways_when_they_are_quiet(tmp_path: Path) -> None:
    """Others keep their processes; a call in progress is not cut off for it."""
    async with fleet(tmp_path, WATCHED) as it:
        await calling(it)
        quiet = await it.up("quiet", "recording")
        talking, caller = await it.status("gw01"), await it.status("caller")

        await reload(it, profiles(recording={"env": {"CHANGED": "yes"}}))
        restarting = await it.event("quiet", "restarting")
        assert restarting["data"]["reason"] == "its profile was changed"
        await it.event("quiet", "started", restarting["seq"])
        after = await it.status("quiet")
        assert after["pid"] != quiet["pid"]
        assert (after["sip"], after["restarts"]) == (quiet["sip"], 0)
        assert psutil.Process(after["pid"]).environ()["CHANGED"] == "yes"
        assert (await it.status("caller"))["pid"] == caller["pid"]
        assert (await it.status("gw01"))["pid"] == talking["pid"]

        await it.command("caller", "endCall")
        restarting = await it.event("gw01", "restarting")
        await it.event("gw01", "started", restarting["seq"])
        after = await it.status("gw01")
        assert psutil.Process(after["pid"]).environ()["CHANGED"] == "yes"
        assert (await it.status("caller"))["pid"] == caller["pid"]
        closed = (await it.event("gw01", "call_closed"))["seq"]
        assert closed < restarting["seq"]
        await it.event("gw01", "recording_finished")
        assert "died" not in it.types("gw01") + it.types("quiet")


async def test_a_stop_while_a_changed_profile_replaces_the_process(tmp_path: Path) -> None:
    """The old process still ends: the gateway is not down before it is gone."""
    config = profiles(baresip={"command": ["sh", "-c", STUBBORN, "sh", "{folder}"]})
    async with fleet(tmp_path, config) as it:
        await it.up("gw01", "baresip")
        await reload(it, profiles(baresip={"env": {"CHANGED": "yes"}}))
        await it.event("gw01", "restarting")
        await it.down("gw01")
        assert processes_of(it.appliance) == []
        assert (await it.status("gw01"))["gw_state"] == "down"


# A baresip whose group takes a second to end.
STUBBORN = "trap 'sleep 1; exit 0' TERM; baresip -f \"$1\" & while :; do wait; sleep 0.05; done"
