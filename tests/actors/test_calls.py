"""baresip's call events, in every order they come in, as events of the log."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from actors.gateway.call_records import KeptCall
from actors.gateway.calls import (
    CALLS_ASKED,
    CALLS_NOW,
    MAX_CALLS,
    STATISTICS_EVERY,
    Calls,
    missed,
)

PEER = "sip:caller@127.0.0.1:5099"


def event(kind: str, call: str = "c1", **more: Any) -> dict[str, Any]:
    return {
        "event": True,
        "type": kind,
        "class": "call",
        "direction": "incoming",
        "peeruri": PEER,
        "id": call,
        **more,
    }


def kinds(calls: Calls, *events: dict[str, Any], now: float = 0.0) -> list[str]:
    return [kind for e in events for kind, _ in calls.take(e, now)]


FACTS = {"call_id": "c1", "direction": "incoming", "peer": PEER}


def test_a_call_from_ring_to_end() -> None:
    calls = Calls()
    assert calls.take(event("CALL_INCOMING"), 10.0) == [("gateway.call_ringing", FACTS)]
    talking = [calls.talking]
    assert calls.take(event("CALL_ESTABLISHED"), 11.0) == [("gateway.call_established", FACTS)]
    talking.append(calls.talking)
    told = calls.take(event("CALL_CLOSED", param="Connection reset by peer"), 15.25)
    closed = {**FACTS, "reason": "Connection reset by peer", "seconds": 4.25}
    assert told == [("gateway.call_closed", closed)]
    assert len(calls) == 0
    assert [*talking, calls.talking] == [False, True, False]


def test_an_automatically_answered_call_begins_with_established() -> None:
    calls = Calls()
    assert kinds(calls, event("CALL_ESTABLISHED")) == ["gateway.call_established"]
    (view,) = calls.views()
    assert (view.call_id, view.state, view.peer) == ("c1", "established", PEER)


@pytest.mark.parametrize("ringing", ["CALL_INCOMING", "CALL_RINGING", "CALL_PROGRESS"])
def test_what_counts_as_ringing(ringing: str) -> None:
    calls = Calls()
    assert kinds(calls, event(ringing)) == ["gateway.call_ringing"]
    assert [v.state for v in calls.views()] == ["ringing"]


def test_an_end_without_a_beginning_is_told() -> None:
    """A call refused before it rang, or one whose beginning was lost with the channel."""
    calls = Calls()
    told = calls.take(event("CALL_CLOSED", param="486 Busy Here"), 3.0)
    assert told == [("gateway.call_closed", {**FACTS, "reason": "486 Busy Here", "seconds": 0.0})]
    assert len(calls) == 0


@pytest.mark.parametrize("late", ["CALL_RTCP", "CALL_DTMF_START", "CALL_MENC", "CALL_TRANSFER"])
def test_what_comes_after_the_end_makes_no_call(late: str) -> None:
    calls = Calls()
    kinds(calls, event("CALL_ESTABLISHED"), event("CALL_CLOSED"))
    assert kinds(calls, event(late, rtcp_stats={"tx": {}})) == []
    assert len(calls) == 0


def test_any_order_of_a_calls_events_leaves_no_call_and_tells_its_end_once() -> None:
    parts = [
        event("CALL_RINGING"),
        event("CALL_ESTABLISHED"),
        event("CALL_RTCP", rtcp_stats={"rx": {"lost": 0}}),
        event("CALL_DTMF_START", param="5"),
    ]
    for order in itertools.permutations(parts):
        calls = Calls()
        told = kinds(calls, *order, event("CALL_CLOSED"))
        assert told.count("gateway.call_closed") == 1
        assert told[-1] == "gateway.call_closed"
        assert len(calls) == 0


def test_calls_are_kept_apart_and_the_newest_is_the_one_to_write_to() -> None:
    calls = Calls()
    assert calls.peer() is None
    kinds(
        calls,
        event("CALL_ESTABLISHED", "one", peeruri="sip:one@x"),
        event("CALL_RINGING", "two", peeruri="sip:two@x"),
    )
    assert calls.peer() == "sip:two@x"
    kinds(calls, event("CALL_CLOSED", "two"))
    assert calls.peer() == "sip:one@x"
    assert calls.talking


def test_keys_are_told_as_they_are_pressed() -> None:
    calls = Calls()
    calls.take(event("CALL_ESTABLISHED"), 0.0)
    told = calls.take(event("CALL_DTMF_START", param="#"), 1.0)
    assert told == [("gateway.dtmf", {**FACTS, "key": "#"})]
    assert calls.take(event("CALL_DTMF_END", param="#"), 1.1) == []


def test_statistics_are_told_now_and_then_and_with_the_end() -> None:
    calls = Calls()
    calls.take(event("CALL_ESTABLISHED"), 0.0)
    first, second = {"rx": {"lost": 1}}, {"rx": {"lost": 2}}
    assert calls.take(event("CALL_RTCP", rtcp_stats=first), 5.0) == [
        ("gateway.rtp_statistics", {**FACTS, "rtp": first})
    ]
    assert calls.take(event("CALL_RTCP", rtcp_stats=second), 5.0 + STATISTICS_EVERY - 0.1) == []
    assert calls.take(event("CALL_RTCP", rtcp_stats="none"), 30.0) == []
    ((_, closed),) = calls.take(event("CALL_CLOSED"), 40.0)
    assert closed["rtp"] == second


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("REGISTERING", "gateway.registering"),
        ("REGISTER_OK", "gateway.registered"),
        ("REGISTER_FAIL", "gateway.register_failed"),
        ("UNREGISTERING", "gateway.unregistering"),
    ],
)
def test_registrations(kind: str, told: str) -> None:
    seen = Calls().take({"type": kind, "accountaor": "sip:a@b", "param": "401"}, 0.0)
    assert seen == [(told, {"account": "sip:a@b", "detail": "401"})]


@pytest.mark.parametrize(
    "rubbish",
    [
        {},
        {"type": None},
        {"type": "CALL_ESTABLISHED"},
        {"type": "CALL_ESTABLISHED", "id": 7},
        {"type": "SHUTDOWN", "id": "c1"},
        {"type": ["CALL_CLOSED"], "id": "c1"},
    ],
)
def test_rubbish_says_nothing(rubbish: dict[str, Any]) -> None:
    assert Calls().take(rubbish, 0.0) == []


def test_calls_are_bounded_whatever_a_gateway_makes_up() -> None:
    calls = Calls()
    for i in range(MAX_CALLS + 10):
        calls.take(event("CALL_INCOMING", f"c{i}"), 0.0)
    assert len(calls) == MAX_CALLS


def test_a_gateway_that_ends_ends_its_calls() -> None:
    """In the words and the shape of a call that ends by itself."""
    calls = Calls()
    calls.take(event("CALL_ESTABLISHED", "one"), 1.0)
    calls.take(event("CALL_RTCP", "one", rtcp_stats={"rx": {"lost": 1}}), 2.0)
    calls.take(event("CALL_RINGING", "two"), 3.0)
    facts = {"direction": "incoming", "peer": PEER, "reason": "the gateway ended"}
    assert calls.clear(5.5, "the gateway ended") == [
        (
            "gateway.call_closed",
            {"call_id": "one", **facts, "seconds": 4.5, "rtp": {"rx": {"lost": 1}}},
        ),
        ("gateway.call_closed", {"call_id": "two", **facts, "seconds": 0.0}),
    ]
    assert len(calls) == 0
    assert calls.clear(6.0, "the gateway ended") == []


@pytest.mark.parametrize("late", ["CALL_CLOSED", "CALL_ESTABLISHED", "CALL_RINGING"])
def test_a_call_ends_once(late: str) -> None:
    """Also when a list that was asked for before its end names it afterwards."""
    calls = Calls()
    kinds(calls, event("CALL_ESTABLISHED"), event("CALL_CLOSED"))
    assert kinds(calls, event(late)) == []
    kinds(calls, event("CALL_ESTABLISHED", "c2"))
    calls.clear(1.0, "the gateway ended")
    assert kinds(calls, event(late, "c2")) == []
    assert len(calls) == 0


def test_an_established_call_does_not_ring_any_more() -> None:
    calls = Calls()
    kinds(calls, event("CALL_ESTABLISHED"))
    assert kinds(calls, event("CALL_PROGRESS")) == []
    assert [view.state for view in calls.views()] == ["established"]


OTHER = "sip:other@127.0.0.1:5100"
# As baresip 1.0 answers `listcalls`.
LISTED = f"--- Active calls (1) ---\n> [line 2]  0:00:09  ESTABLISHED             {OTHER}"


def test_calls_that_ended_while_the_channel_was_away_are_closed() -> None:
    calls = Calls()
    calls.take(event("CALL_ESTABLISHED"), 0.0)
    calls.take(event("CALL_ESTABLISHED", "c2", peeruri=OTHER), 0.0)
    for now in (9.0, 10.0):
        assert calls.take({"type": CALLS_ASKED}, now) == []
        told = calls.take({"type": CALLS_NOW, "data": LISTED}, now)
        assert [data["call_id"] for _, data in told] == (["c1"] if now == 9.0 else [])
    assert [view.call_id for view in calls.views()] == ["c2"]


def test_a_peer_whose_address_begins_like_a_listed_one_is_not_listed() -> None:
    calls = Calls()
    calls.take(event("CALL_ESTABLISHED", peeruri=OTHER.removesuffix("0")), 0.0)
    calls.take({"type": CALLS_ASKED}, 1.0)
    assert len(calls.take({"type": CALLS_NOW, "data": LISTED}, 1.0)) == 1


def test_a_call_that_begins_while_the_list_is_under_way_goes_on() -> None:
    calls = Calls()
    calls.take({"type": CALLS_ASKED}, 0.0)
    calls.take(event("CALL_ESTABLISHED"), 0.1)
    assert calls.take({"type": CALLS_NOW, "data": LISTED}, 0.2) == []
    assert [view.call_id for view in calls.views()] == ["c1"]


def test_calls_that_outlived_the_appliance_are_taken_up_where_they_were() -> None:
    calls = Calls()
    began = "2026-01-01T00:00:00.000000Z"
    kept = [
        KeptCall("c1", "incoming", PEER, began, "2026-01-01T00:00:02.000000Z"),
        KeptCall("c2", "incoming", OTHER, began, None),
    ]
    calls.resume(kept, "2026-01-01T00:01:02.000000Z", 500.0)
    assert [(v.call_id, v.state, v.since) for v in calls.views()] == [
        ("c1", "established", began),
        ("c2", "ringing", began),
    ]
    assert kinds(calls, event("CALL_ESTABLISHED")) == []
    ((_, closed),) = calls.take(event("CALL_CLOSED"), 510.0)
    assert closed["seconds"] == 70.0


STATUS = """
===== Call debug (ESTABLISHED) =====
 local_uri:  <sip:gw@127.0.0.1:15060>
 peer_uri:   <sip:caller@127.0.0.1:5099>
 af=AF_INET id=c1
 direction: Incoming
SDP session
"""


def test_a_call_that_was_answered_before_anybody_listened_is_told_once() -> None:
    calls = Calls()
    event_of_it = missed(STATUS)
    assert event_of_it is not None
    assert calls.take(event_of_it, 0.0) == [("gateway.call_established", FACTS)]
    assert calls.take(event("CALL_ESTABLISHED"), 0.1) == []
    assert [view.call_id for view in calls.views()] == ["c1"]


@pytest.mark.parametrize("status", ["", "(no active call)", "===== Call debug (OUTGOING) ====="])
def test_a_status_without_an_established_call_tells_nothing(status: str) -> None:
    assert missed(status) is None
