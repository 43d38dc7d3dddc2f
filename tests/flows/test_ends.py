"""Every call that the log tells a beginning of has one end in it, however it ended.

Real baresips talk; what ends the call is a person, the gateway, the actor, or the appliance.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from actors.gateway.call_records import seconds_between
from config.load import load
from supervisor.mailbox import Message
from tests.appliance import inside
from tests.flows.kit import QUICK, WATCH, Fleet, Json, fleet, profiles
from tests.flows.test_containers import Boxes

WATCHED = profiles(
    baresip={"watch": WATCH, "restart": QUICK}, recording={"watch": WATCH, "restart": QUICK}
)


async def talking(it: Fleet) -> Json:
    """gw01, called by another; what was told of the call."""
    sip = (await it.up("gw01"))["sip"]
    await it.up("caller", "baresip")
    # Not with its start: after a restart it would call again.
    await it.command("caller", "dial", sip)
    await it.event("caller", "call_established")
    return dict((await it.event("gw01", "call_established"))["data"])


def ends(it: Fleet, gw_id: str = "gw01") -> list[Json]:
    """What was told of the ends of its calls."""
    return [e["data"] for e in it.of(gw_id) if e["type"] == "gateway.call_closed"]


async def ended(it: Fleet, call: Json, reason: str | None = None) -> Json:
    """Its end, in the shape of every end, when all that follows from it has been told as well."""
    found: Json = (await it.event("gw01", "call_closed", call_id=call["call_id"]))["data"]
    assert set(found) - {"rtp"} == {"call_id", "direction", "peer", "reason", "seconds"}
    assert {key: found[key] for key in call} == call
    if reason is not None:
        assert found["reason"] == reason
    await it.event("gw01", "recording_finished")
    assert ends(it) == [found]
    return found


@pytest.mark.parametrize("who", ["caller", "gw01"])
async def test_somebody_hangs_up(tmp_path: Path, who: str) -> None:
    async with fleet(tmp_path, WATCHED) as it:
        call = await talking(it)
        await it.is_("gw01", recording_duration="00:00:01")
        await it.command(who, "endCall")
        await ended(it, call)
        await it.down("gw01")
        await it.event("gw01", "stopped")
        assert len(ends(it)) == 1


@pytest.mark.parametrize("force", [False, True])
async def test_the_gateway_is_stopped(tmp_path: Path, force: bool) -> None:
    async with fleet(tmp_path, WATCHED) as it:
        call = await talking(it)
        await it.is_("gw01", recording_duration="00:00:01")
        await it.down("gw01", force=force)
        await ended(it, call)


async def test_its_process_dies(tmp_path: Path) -> None:
    async with fleet(tmp_path, WATCHED) as it:
        call = await talking(it)
        os.kill((await it.status("gw01"))["pid"], signal.SIGKILL)
        died = await it.event("gw01", "died")
        await it.event("gw01", "started", died["seq"])
        await ended(it, call, "the gateway ended")


async def test_a_call_that_only_rang(tmp_path: Path) -> None:
    silent = "<sip:{gw_id}@{address}:{sip_port}>;regint=0;answermode=manual\n"
    async with fleet(tmp_path, profiles(recording={"files": {"accounts": silent}})) as it:
        sip = (await it.up("gw01"))["sip"]
        await it.up("caller", "baresip", dial=sip)
        call = (await it.event("gw01", "call_ringing"))["data"]
        await it.appliance.kill9()
        await it.appliance.start()
        async with Fleet(it.appliance) as again:
            closed = (await again.event("gw01", "call_closed"))["data"]
            assert closed == {**call, "reason": "the appliance ended", "seconds": 0.0}
            assert "call_established" not in again.types("gw01")


async def test_the_appliance_is_killed(tmp_path: Path) -> None:
    """The end is told before anything else is, and only by the first start that follows."""
    async with fleet(tmp_path, WATCHED) as it:
        call = await talking(it)
        established = await it.event("gw01", "call_established")
        # Told every few seconds while it talks: up to there its length is known.
        await it.until(
            lambda e: (
                e["type"] == "gateway.rtp_statistics"
                and e["subject"] == "gateway/gw01"
                and seconds_between(established["ts"], e["ts"]) >= 1
            ),
            established["seq"],
            "statistics of a call that has lasted",
        )
        await it.appliance.kill9()
        await it.appliance.start()
        async with Fleet(it.appliance) as again:
            closed = await ended(again, call, "the appliance ended")
            assert closed["seconds"] >= 1
            types = again.types("gw01")
            assert types.index("call_closed") < types.index("restarting")
            await again.is_("gw01", gw_state="up", calls=[])
            await again.event("caller", "call_closed")
        await it.appliance.kill9()
        await it.appliance.start()
        async with Fleet(it.appliance) as again:
            second = await again.until(
                lambda e: (
                    e["type"] == "gateway.restarting"
                    and again.types("gw01").count("restarting") == 2
                ),
                0,
                "second restart",
            )
            await again.event("gw01", "started", second["seq"])
            assert len(ends(again)) == 1


async def test_the_appliance_is_stopped(tmp_path: Path) -> None:
    async with fleet(tmp_path, WATCHED) as it:
        call = await talking(it)
        await it.is_("gw01", recording_duration="00:00:01")
        await it.appliance.restart()
        async with Fleet(it.appliance) as again:
            await ended(again, call, "the gateway ended")


class Unheard(Message):
    """Nothing that a gateway knows: it takes it for a bug, and ends."""


async def test_its_actor_crashes(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with inside(tmp_path, WATCHED) as appliance, Fleet(appliance) as it:
            call = await talking(it)
            await it.is_("gw01", recording_duration="00:00:01")
            child = appliance.board.members.child("gw01")
            assert child is not None
            child.ref.tell(Unheard())
            await ended(it, call, "its actor ended")
            await it.is_("gw01", gw_state="up", calls=[])


# -- a call that goes on without the appliance --------------------------------------------


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[Boxes]:
    base = tmp_path / "engine"
    base.mkdir()
    made = Boxes(base, "docker")
    folders = tmp_path / "appliance" / "state" / "gateways"
    made.inside(f"cd {folders}/$2 && exec baresip -f .\n")
    yield made
    made.end()


def baresip(boxes: Boxes) -> Json:
    """A profile whose gateways are baresips in containers."""
    return boxes.config(
        control="ctrl_tcp",
        ready={"when": "control", "timeout": 10},
        watch=WATCH,
        files=load(None).gateways.profiles["baresip"].files,
    )


async def talking_in_boxes(it: Fleet) -> Json:
    """As `talking`, both in containers."""
    sip = (await it.up("gw01", "box"))["sip"]
    await it.up("caller", "box", dial=sip)
    await it.event("caller", "call_established")
    return dict((await it.event("gw01", "call_established"))["data"])


async def test_a_call_outlives_the_appliance_with_its_container(
    tmp_path: Path, boxes: Boxes
) -> None:
    """It is neither closed nor begun nor dialled again; it ends when it does."""
    async with fleet(tmp_path, baresip(boxes)) as it:
        call = await talking_in_boxes(it)
        since = (await it.status("gw01"))["calls"]
        await it.appliance.kill9()
        await it.appliance.restart()
        async with Fleet(it.appliance) as again:
            for gw_id in ("gw01", "caller"):
                await again.is_(gw_id, gw_state="up")
            (view,) = (await again.status("gw01"))["calls"]
            assert (view["call_id"], view["state"]) == (call["call_id"], "established")
            assert view["since"][:16] == since[0]["since"][:16]
            await again.command("caller", "endCall")
            closed = (await again.event("gw01", "call_closed"))["data"]
            assert closed["seconds"] > 0.5
            await again.event("caller", "call_closed")
            for gw_id in ("gw01", "caller"):
                types = again.types(gw_id)
                assert types.count("call_established") == types.count("call_closed") == 1
                await again.down(gw_id, force=True)


async def test_a_call_that_ended_while_the_appliance_was_away(tmp_path: Path, boxes: Boxes) -> None:
    """By itself, or with its container."""
    async with fleet(tmp_path, baresip(boxes)) as it:
        await talking_in_boxes(it)
        await it.appliance.kill9()
        # The caller's container dies, and its baresip with a BYE: gw01's goes on without the call.
        (pid,) = [p for p in boxes.pids() if Path(f"/proc/{p}/cwd").readlink().name == "caller"]
        os.kill(pid, signal.SIGTERM)
        await gone(pid)
        await it.appliance.start()
        async with Fleet(it.appliance) as again:
            closed = (await again.event("gw01", "call_closed"))["data"]
            assert closed["reason"] == "it ended while the control channel was away"
            closed = (await again.event("caller", "call_closed"))["data"]
            assert closed["reason"] == "its container ended while nobody saw it"
            for gw_id in ("gw01", "caller"):
                await again.down(gw_id, force=True)


async def gone(pid: int) -> None:
    """Wait until a process that is nobody's child here has ended."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
