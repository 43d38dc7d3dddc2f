"""A recording gateway, from the first curl of the contract to a recording that plays.

Every part is real: an appliance in its own process, baresip at both ends or sipp at one, ffmpeg.
Deterministic: each step waits for the event that says it happened.
"""

from __future__ import annotations

import subprocess
import xml.sax.saxutils
from pathlib import Path

import pytest
import trio

from tests.appliance import ports as unused
from tests.flows.kit import Fleet, dominant, fleet, length, none_left, profiles

# A caller with a tone of its own, so that it can be told from the gateway's 440 Hz.
CALLER = profiles(
    recording={"watch": {"every": 2}},
    baresip={"watch": {"every": 2}},
)


async def called(it: Fleet, gateway: str, caller: str = "caller", **more: object) -> str:
    """Have another gateway call one; the address that the call went to."""
    sip = (await it.status(gateway))["sip"]
    await it.up(caller, "baresip", dial=sip, **more)
    await it.event(gateway, "call_established")
    await it.event(caller, "call_established")
    return str(sip)


async def test_the_first_curl_of_the_contract(tmp_path: Path) -> None:
    """Against the packaged profiles, as they stand."""
    async with fleet(tmp_path) as it:
        body = {"type": "Record", "room": "test-room", "gw_id": "gw01", "main_app": "recording"}
        answer = await it.client.post("/gateway/start", json=body)
        assert (answer.status_code, answer.json()) == (
            200,
            {"status": "success", "data": {"processing_state": "working", "gw_id": "gw01"}},
        )
        status = await it.status("gw01")
        assert status["gw_state"] == "up"
        assert status["recording_duration"] == "00:00:00"
        assert status["transcript_progress"] == "0%"

        answer = await it.send("gw01", {"action": "ping"})
        assert answer.json()["data"] == {"ack": True, "received": {"action": "ping", "pong": True}}

        answer = await it.stop("gw01")
        assert answer.json() == {"status": "success", "data": {"processing_state": "stopped"}}
        status = await it.status("gw01")
        assert status["gw_state"] == "down"
        assert status["detail"] == "stopped"
        assert (await it.send("gw01", {"action": "ping"})).status_code == 403
        await it.event("gw01", "stopped")
        assert it.types("gw01") == ["starting", "started", "stopping", "stopped"]
        await none_left(it.appliance)


async def test_a_call_is_seen_heard_and_recorded(tmp_path: Path) -> None:
    async with fleet(tmp_path, CALLER) as it:
        await it.up("gw01")
        await called(it, "gw01")

        # What is recorded is counted while it is: wait for it to reach two seconds.
        await it.is_("gw01", recording_duration="00:00:02")
        status = await it.status("gw01")
        assert [c["state"] for c in status["calls"]] == ["established"]
        assert "caller" in status["calls"][0]["peer"]

        assert (await it.command("caller", "sendString", "12#"))["ok"] is True
        await it.event("gw01", "dtmf", key="#")
        assert (await it.command("caller", "endCall"))["ok"] is True

        closed = (await it.event("gw01", "call_closed"))["data"]
        assert closed["reason"]
        assert closed["direction"] == "incoming"
        assert closed["seconds"] >= 2
        finished = (await it.event("gw01", "recording_finished"))["data"]
        await it.down("gw01")
        await it.event("gw01", "stopped")

        types = it.types("gw01")
        assert types[:2] == ["starting", "started"]
        assert types.index("call_established") < types.index("dtmf") < types.index("call_closed")
        assert types[-2:] == ["stopping", "stopped"]
        keys = [e["data"]["key"] for e in it.of("gw01") if e["type"] == "gateway.dtmf"]
        assert keys == ["1", "2", "#"]

        (path,) = it.recordings("gw01")
        assert str(path) == finished["file"]
        assert length(path) == pytest.approx(closed["seconds"], abs=0.7)
        assert finished["seconds"] == pytest.approx(length(path), abs=0.01)
        assert abs(dominant(path) - 440) <= 20
        recorded = int((await it.status("gw01"))["recording_duration"][-2:])
        assert recorded == int(finished["seconds"])


async def test_the_end_of_a_call_comes_with_its_rtp_statistics(tmp_path: Path) -> None:
    async with fleet(tmp_path, CALLER) as it:
        await it.up("gw01")
        await called(it, "gw01")
        told = await it.until(
            lambda e: (
                e["type"] == "gateway.rtp_statistics"
                and e["subject"] == "gateway/gw01"
                and e["data"]["rtp"]["tx"]["sent"] > 0
            ),
            0,
            "report of what was sent",
        )
        assert told["data"]["rtp"]["rx"]["lost"] == 0
        await it.command("gw01", "endCall")
        closed = (await it.event("gw01", "call_closed"))["data"]
        assert closed["rtp"]["tx"]["sent"] > 0


async def test_two_calls_one_after_the_other(tmp_path: Path) -> None:
    async with fleet(tmp_path, CALLER) as it:
        await it.up("gw01")
        sip = await called(it, "gw01")
        total = 0.0
        after = 0
        for call in range(2):
            await it.event("gw01", "call_established", after)
            await trio.sleep(1.2)  # so that there is something to hear
            await it.command("caller", "endCall")
            done = await it.event("gw01", "recording_finished", after)
            total += done["data"]["seconds"]
            after = done["seq"]
            if call == 0:
                await it.command("caller", "dial", sip)
        assert len(it.recordings("gw01")) == 2
        status = await it.status("gw01")
        assert status["recording_duration"] == f"00:00:{int(total):02d}"


async def test_two_calls_at_once_are_two_whole_recordings(tmp_path: Path) -> None:
    """The end of one must not touch the file that the other is still written to."""
    async with fleet(tmp_path, CALLER) as it:
        await it.up("gw01")
        sip = await called(it, "gw01")
        first = (await it.event("gw01", "call_established"))["seq"]
        await it.up("other", "baresip", dial=sip)
        await it.event("gw01", "call_established", first)
        assert len((await it.status("gw01"))["calls"]) == 2

        await it.command("caller", "endCall")
        done = (await it.event("gw01", "recording_finished"))["seq"]
        await trio.sleep(1.5)
        await it.command("other", "endCall")
        closed = await it.event("gw01", "call_closed", done)
        await it.event("gw01", "recording_finished", done)
        await it.down("gw01")
        lengths = [length(path) for path in it.recordings("gw01")]
        assert len(lengths) == 2
        ends = [e["data"]["seconds"] for e in it.of("gw01") if e["type"] == "gateway.call_closed"]
        assert lengths == pytest.approx(ends, abs=0.7)
        assert closed["data"]["seconds"] > 1.5
        for path in it.recordings("gw01"):
            assert abs(dominant(path) - 440) <= 20


async def test_a_long_state_folder_costs_no_recording(tmp_path: Path) -> None:
    """baresip cuts the names of its files at 128 characters, and those of folders at 256."""
    long = ("a-long-name-" * 20)[: 190 - len(str(tmp_path))]
    async with fleet(tmp_path / long, CALLER) as it:
        await it.up("gw01")
        await called(it, "gw01")
        await it.is_("gw01", recording_duration="00:00:01")
        await it.command("caller", "endCall")
        await it.event("gw01", "recording_finished")
        assert len(it.recordings("gw01")) == 1


async def test_loop_dials_again_after_a_call_ends(tmp_path: Path) -> None:
    async with fleet(tmp_path, CALLER) as it:
        await it.up("gw01")
        await called(it, "gw01", loop=True)
        after = 0
        for _ in range(2):
            await it.event("gw01", "call_established", after)
            await it.command("gw01", "endCall")
            after = (await it.event("gw01", "call_closed", after))["seq"]
        await it.event("gw01", "call_established", after)


async def test_without_loop_a_call_is_dialled_once(tmp_path: Path) -> None:
    async with fleet(tmp_path, CALLER) as it:
        await it.up("gw01")
        await called(it, "gw01", loop="false")
        await it.command("gw01", "endCall")
        await it.event("caller", "call_closed")
        with trio.move_on_after(2.0):  # a redial would come after a second and its jitter
            first = (await it.event("caller", "call_established"))["seq"]
            await it.event("caller", "call_established", first)
            pytest.fail("it dialled again")


async def test_loop_does_not_answer_others_calls_with_calls(tmp_path: Path) -> None:
    """It dials again when the call that it dialled ends, not when somebody else's does."""
    async with fleet(tmp_path, CALLER) as it:
        await it.up("gw01")
        await called(it, "gw01", loop=True)
        caller = (await it.status("caller"))["sip"]
        await it.up("third", "baresip", dial=caller)
        await it.event("third", "call_established")
        await it.command("third", "endCall")
        await it.event("caller", "call_closed", direction="incoming")
        before = it.types("gw01").count("call_established")
        with trio.move_on_after(2.0):
            await it.until(
                lambda e: e["type"] == "gateway.call_established" and e["subject"].endswith("gw01"),
                it.head,
                "second call",
            )
            pytest.fail("it dialled a second time")
        assert before == 1


async def test_a_call_to_nobody_is_told_and_the_gateway_stays(tmp_path: Path) -> None:
    async with fleet(tmp_path, CALLER) as it:
        await it.up("gw01", "baresip", dial=f"sip:x@127.0.0.1:{unused()};transport=tcp")
        closed = (await it.event("gw01", "call_closed"))["data"]
        assert (closed["direction"], closed["seconds"]) == ("outgoing", 0.0)
        assert closed["reason"]
        assert (await it.status("gw01"))["gw_state"] == "up"


async def test_chat_and_raw_commands(tmp_path: Path) -> None:
    async with fleet(tmp_path, CALLER) as it:
        await it.up("gw01")
        await called(it, "gw01")
        chat = await it.command("caller", "sendChat", "ciao")
        assert chat["data"] == "200"
        assert "gw01" in chat["peer"]

        listed = await it.command("gw01", "callstat")
        assert "127.0.0.1" in listed["data"]
        accounts = await it.command("gw01", "reginfo")
        assert "sip:gw01@127.0.0.1" in accounts["data"]

        refused = await it.send("gw01", {"command": "no_such_command"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "command_failed")
        refused = await it.send("gw01", {"command": "sendKey", "param1": "x"})
        assert refused.status_code == 422


async def test_chat_to_one_who_takes_none(tmp_path: Path) -> None:
    """sipp answers a MESSAGE outside of its scenario with an error, or not at all."""
    port = unused()
    with sipp(tmp_path, "-sn", "uas", "-p", str(port)):
        async with fleet(tmp_path, CALLER) as it:
            await it.up("gw01", "baresip")
            body = {
                "command": "sendChat",
                "param1": "hello",
                "param2": f"sip:x@127.0.0.1:{port}",
            }
            answer = await it.send("gw01", body)
            assert answer.status_code in (409, 504)
            assert (await it.status("gw01"))["gw_state"] == "up"


async def test_another_makers_caller(tmp_path: Path) -> None:
    """sipp, with its built-in scenario: invite, a moment, bye."""
    async with fleet(tmp_path, CALLER) as it:
        sip = (await it.up("gw01"))["sip"]
        where = xml.sax.saxutils.escape(sip.partition("@")[2])
        local = unused()
        arguments = ["-sn", "uac", where, "-p", str(local), "-m", "1", "-d", "1500", "-s", "gw01"]
        with sipp(tmp_path, *arguments) as process:
            await it.event("gw01", "call_established")
            closed = (await it.event("gw01", "call_closed"))["data"]
            assert await trio.to_thread.run_sync(process.wait, 20) == 0
        assert closed["direction"] == "incoming"
        assert closed["seconds"] == pytest.approx(1.5, abs=0.7)


def sipp(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """sipp, in the background; as a context manager it is ended."""
    return _Ended(
        ["sipp", *arguments, "-i", "127.0.0.1", "-nostdin"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


class _Ended(subprocess.Popen[bytes]):
    def __exit__(self, *_exc: object) -> None:
        if self.poll() is None:
            self.kill()
        self.wait()
