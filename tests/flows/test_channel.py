"""baresip has one control connection: whoever connects next has it. The gateway takes it back."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.flows.kit import Fleet, fleet, profiles


def control_port(it: Fleet, sip: str) -> int:
    """Of the gateway at a SIP address, by the order of the slots."""
    ports = it.appliance.config["gateways"]["ports"]
    slot = (int(sip.rpartition(":")[2]) - ports["sip"]["first"]) // 2
    return int(ports["control"]["first"] + slot)


async def test_a_channel_that_was_taken_away_is_opened_again(tmp_path: Path) -> None:
    config = profiles(recording={"watch": {"every": 1}})
    async with fleet(tmp_path, config) as it:
        sip = (await it.up("taken"))["sip"]
        await it.up("caller", "baresip", dial=sip)
        await it.event("taken", "call_established")
        with trio.fail_after(20):
            thief = await trio.open_tcp_stream("127.0.0.1", control_port(it, sip))
            # It reads the end of its own connection when the gateway has taken its channel back.
            while await thief.receive_some(4096):
                continue
            await thief.aclose()
            while (await it.send("taken", {"action": "ping"})).status_code != 200:
                await trio.sleep(0.05)
        status = await it.status("taken")
        assert (status["gw_state"], status["restarts"]) == ("up", 0)
        assert [call["state"] for call in status["calls"]] == ["established"]
        await it.send("caller", {"command": "endCall"})
        await it.event("taken", "call_closed")
        assert (await it.status("taken"))["calls"] == []
