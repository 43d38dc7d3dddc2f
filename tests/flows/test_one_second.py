"""Calls of one gateway within the same second: baresip names its files by it.

The clock is the fault here, so it is waited for; everything else is seen in the log.
"""

from __future__ import annotations

import time
import xml.sax.saxutils
from pathlib import Path

import pytest
import trio

from tests.appliance import ports as unused
from tests.flows.kit import Fleet, Json, dominant, fleet, length
from tests.flows.test_calls import sipp


async def a_second_begins() -> None:
    while time.time() % 1 > 0.1:
        await trio.sleep(1.01 - time.time() % 1)


async def talking(it: Fleet, caller: str, sip: str) -> Json:
    """A call of one of the callers, established at both ends."""
    after = it.head
    await it.command(caller, "dial", sip)
    await it.event(caller, "call_established", after)
    return await it.event("gw01", "call_established", after)


def second(event: Json) -> str:
    return str(event["ts"].partition(".")[0])


async def ended(it: Fleet, caller: str) -> Json:
    """The data of the finished recording of the call that it hangs up."""
    after = it.head
    await it.command(caller, "endCall")
    return dict((await it.event("gw01", "recording_finished", after))["data"])


async def test_two_calls_at_once_that_began_in_one_second(tmp_path: Path) -> None:
    """Both recordings are whole and play, whichever call ends first."""
    async with fleet(tmp_path) as it:
        sip = (await it.up("gw01"))["sip"]
        for caller in ("one", "two"):
            await it.up(caller, "baresip")
        await a_second_begins()
        first = await talking(it, "one", sip)
        other = await talking(it, "two", sip)
        assert second(first) == second(other)
        await trio.sleep(1.5)  # of sound
        short = await ended(it, "one")
        await trio.sleep(1.0)
        long = await ended(it, "two")

        assert [Path(r["file"]).name[-6:] for r in (short, long)] == ["-1.wav", "-2.wav"]
        lengths = [
            e["data"]["seconds"] for e in it.of("gw01") if e["type"] == "gateway.call_closed"
        ]
        assert [r["seconds"] for r in (short, long)] == pytest.approx(lengths, abs=0.5)
        for path in it.recordings("gw01"):
            assert abs(dominant(path) - 440) <= 20
        assert "recording_failed" not in it.types("gw01")


async def test_two_calls_one_after_the_other_in_one_second(tmp_path: Path) -> None:
    async with fleet(tmp_path) as it:
        sip = (await it.up("gw01"))["sip"]
        await it.up("caller", "baresip")
        await a_second_begins()
        began = []
        for _ in range(2):
            began.append(second(await talking(it, "caller", sip)))
            await trio.sleep(0.25)  # of sound
            after = it.head
            await it.command("caller", "endCall")
            await it.event("gw01", "call_closed", after)
        assert began[0] == began[1]
        first = await it.event("gw01", "recording_finished")
        await it.event("gw01", "recording_finished", first["seq"])
        for path in it.recordings("gw01"):
            assert length(path) > 0.1
        assert len(it.recordings("gw01")) == 2


async def test_what_was_recorded_before_a_crash_in_the_same_second_is_kept(
    tmp_path: Path,
) -> None:
    """Both calls' files are left as the power found them; the next start finishes both."""
    async with fleet(tmp_path) as it:
        sip = (await it.up("gw01"))["sip"]
        for caller in ("one", "two"):
            await it.up(caller, "baresip")
        await a_second_begins()
        for caller in ("one", "two"):
            await talking(it, caller, sip)
        await it.is_("gw01", recording_duration="00:00:02")
        await it.appliance.kill9()
        await it.appliance.start()
        async with Fleet(it.appliance) as again:
            first = await again.event("gw01", "recording_finished")
            await again.event("gw01", "recording_finished", first["seq"])
            for path in again.recordings("gw01"):
                assert abs(dominant(path) - 440) <= 20


async def test_calls_of_one_moment_are_kept_or_told_to_be_lost(tmp_path: Path) -> None:
    """sipp's calls come within a millisecond: no name can be changed in between."""
    async with fleet(tmp_path) as it:
        sip = (await it.up("gw01"))["sip"]
        where = xml.sax.saxutils.escape(sip.partition("@")[2])
        arguments = ["-sn", "uac", where, "-p", str(unused()), "-s", "gw01", "-d", "1000"]
        arguments += ["-m", "2", "-l", "2", "-r", "2", "-rp", "1"]
        with sipp(tmp_path, *arguments) as process:
            assert await trio.to_thread.run_sync(process.wait, 20) == 0
        first = await it.event("gw01", "call_closed")
        await it.event("gw01", "call_closed", first["seq"])
        assert it.types("gw01").count("call_established") == 2
        finished = await it.event("gw01", "recording_finished")
        lost = [e["data"] for e in it.of("gw01") if e["type"] == "gateway.recording_failed"]
        if lost:
            (told,) = lost
            assert "share the file" in told["reason"]
        else:
            await it.event("gw01", "recording_finished", finished["seq"])
