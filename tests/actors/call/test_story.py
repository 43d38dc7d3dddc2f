"""What is read from the events of a call: the ways in which voice gateways name things."""

from __future__ import annotations

from typing import Any

import pytest

from actors.call.story import Heard, ToolCall, Utterance, speaker
from tests.actors.call.stories import at, heard, says, story

# -- who says what ----------------------------------------


def test_the_contracts_transcript_is_what_the_caller_says() -> None:
    found = story(says(3000, "CALLER", "hi"))
    assert found.utterances == [Utterance("caller", 3000, None, "hi", 0)]
    assert (found.tools, found.markers) == ([], [])


@pytest.mark.parametrize(
    "payload",
    [
        {"tag": "CALLER", "text": "hi"},
        {"speaker": "user", "text": "hi"},
        {"role": "customer", "content": "hi"},
        {"source": "inbound", "transcript": "hi"},
        {"tag": " Human ", "text": "hi", "final": True},
        {"tag": "caller", "text": "hi", "is_final": True},
    ],
)
@pytest.mark.parametrize("type", ["transcript", "utterance"])
def test_the_ways_of_telling_what_the_caller_says(type: str, payload: dict[str, Any]) -> None:
    found = story(Heard(at(10), type, payload))
    assert found.utterances == [Utterance("caller", 10, None, "hi", 0)]


@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("AGENT", "agent"),
        ("assistant", "agent"),
        ("Bot", "agent"),
        ("model", "agent"),
        ("outbound", "agent"),
        ("caller", "caller"),
        ("INBOUND", "caller"),
        ("Supervisor", "supervisor"),
    ],
)
def test_speakers_have_many_names(name: str, who: str) -> None:
    assert speaker(name) == who


@pytest.mark.parametrize("payload", [{"final": False}, {"is_final": False}])
def test_what_is_not_final_is_left_out(payload: dict[str, Any]) -> None:
    found = story(says(10, "caller", "he", **payload), says(20, "caller", "hello", final=True))
    assert [u.text for u in found.utterances] == ["hello"]
    assert found.utterances[0].event == 1
    assert found.markers == []


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"text": "hi"},
        {"tag": "caller"},
        {"tag": "caller", "text": "  "},
        {"tag": "", "text": "hi"},
        {"tag": ["caller"], "text": "hi"},
        {"tag": "caller", "text": {"words": "hi"}},
        {"tag": True, "text": "hi"},
    ],
)
def test_what_nobody_says_is_a_marker(payload: dict[str, Any]) -> None:
    found = story(Heard(at(10), "transcript", payload))
    assert found.utterances == []
    assert found.markers == [("transcript", 10, payload)]


@pytest.mark.parametrize(
    ("payload", "start", "end"),
    [
        ({}, 5000, None),
        ({"start_ms": 4000}, 4000, None),
        ({"start_ms": 4000, "end_ms": 4900}, 4000, 4900),
        ({"end_ms": 5500}, 5000, 5500),
        ({"duration_ms": 700}, 5000, 5700),
        ({"start_ms": 4000.6, "duration_ms": 700.2}, 4000, 4700),
        ({"start_ms": 4000, "end_ms": 4900, "duration_ms": 1}, 4000, 4900),
        # What cannot be is as good as not told.
        ({"start_ms": 4000, "end_ms": 3000}, 4000, None),
        ({"start_ms": -1, "end_ms": "5500", "duration_ms": True}, 5000, None),
        ({"start_ms": 1e300}, 5000, None),
        ({"start_ms": float("nan"), "end_ms": float("inf")}, 5000, None),
    ],
)
def test_when_somebody_speaks(payload: dict[str, Any], start: int, end: int | None) -> None:
    (found,) = story(says(5000, "caller", **payload)).utterances
    assert (found.start, found.end) == (start, end)


# -- tools ----------------------------------------


@pytest.mark.parametrize("type", ["tool_call", "function_call"])
@pytest.mark.parametrize("name", ["name", "tool_name", "tool", "function"])
@pytest.mark.parametrize("args", ["args", "arguments", "input"])
def test_the_ways_of_using_a_tool(type: str, name: str, args: str) -> None:
    found = story(Heard(at(100), type, {name: "search", args: {"q": 1}, "id": "t1"}))
    assert found.tools == [ToolCall("search", 100, "t1", args={"q": 1})]


def test_a_tool_without_a_name_is_one_all_the_same() -> None:
    (tool,) = story(heard(100, "tool_call")).tools
    assert (tool.name, tool.status) == ("unnamed", "pending")


@pytest.mark.parametrize(
    "type",
    ["tool_result", "tool_response", "tool_call_result", "function_result"],
)
@pytest.mark.parametrize("key", ["id", "tool_call_id", "call_id"])
def test_an_answer_belongs_to_the_call_of_its_id(type: str, key: str) -> None:
    found = story(
        heard(100, "tool_call", name="search", id="a"),
        heard(110, "tool_call", name="search", id="b"),
        Heard(at(350), type, {key: "b", "result": "two"}),
        Heard(at(400), type, {key: "a", "response_summary": "one"}),
    )
    one, two = found.tools
    assert (one.answer, one.latency, one.end, one.status) == ("one", 300, 400, "ok")
    assert (two.answer, two.latency, two.end, two.status) == ("two", 240, 350, "ok")


def test_an_id_may_be_a_number() -> None:
    (tool,) = story(
        heard(100, "tool_call", name="search", id=7), heard(200, "tool_result", tool_call_id="7")
    ).tools
    assert tool.latency == 100


def test_without_ids_an_answer_belongs_to_the_first_of_its_name() -> None:
    found = story(
        heard(100, "tool_call", name="search"),
        heard(110, "tool_call", name="other"),
        heard(120, "tool_call", name="search"),
        heard(200, "tool_result", name="search"),
    )
    assert [t.status for t in found.tools] == ["ok", "pending", "pending"]


def test_an_answer_to_nothing_is_a_tool_of_its_own() -> None:
    (tool,) = story(heard(200, "tool_result", name="search", latency_ms=80)).tools
    assert (tool.name, tool.start, tool.latency, tool.status) == ("search", 200, 80, "ok")


@pytest.mark.parametrize(
    ("type", "payload", "status"),
    [
        ("tool_result", {}, "ok"),
        ("tool_result", {"status": "ok"}, "ok"),
        ("tool_result", {"status": "ERROR"}, "error"),
        ("tool_result", {"status": "timeout"}, "error"),
        ("tool_result", {"is_error": True}, "error"),
        ("tool_result", {"is_error": False, "error": None}, "ok"),
        ("tool_result", {"error": "no such customer"}, "error"),
        ("tool_error", {}, "error"),
    ],
)
def test_what_became_of_a_tool(type: str, payload: dict[str, Any], status: str) -> None:
    found = story(heard(0, "tool_call", name="x"), Heard(at(5), type, {"name": "x", **payload}))
    (tool,) = found.tools
    assert tool.status == status


def test_a_tool_that_is_told_when_it_is_done_is_whole() -> None:
    (tool,) = story(
        heard(500, "tool_call", name="search", status="ok", latency_ms=80, response_summary="3")
    ).tools
    assert (tool.start, tool.end, tool.latency) == (500, 580, 80)
    assert (tool.status, tool.answer) == ("ok", "3")


@pytest.mark.parametrize("status", ["started", "PENDING", "running", "in_progress"])
def test_a_tool_that_is_told_when_it_begins_waits_for_its_answer(status: str) -> None:
    (tool,) = story(
        heard(500, "tool_call", name="search", id="1", status=status),
        heard(700, "tool_result", id="1"),
    ).tools
    assert (tool.status, tool.latency) == ("ok", 200)


# -- the rest ----------------------------------------


def test_all_else_is_a_marker() -> None:
    found = story(heard(0, "plivo_start"), heard(90, "barge_in", by="caller"))
    assert found.markers == [("plivo_start", 0, {}), ("barge_in", 90, {"by": "caller"})]


@pytest.mark.parametrize(
    ("events", "ended", "length"),
    [
        ([], None, 0),
        ([], 9000, 9000),
        ([heard(500, "x"), heard(700, "y")], None, 700),
        ([heard(500, "x")], 9000, 9000),
        # After the end, before the start: clocks differ.
        ([heard(9500, "x")], 9000, 9000),
        ([heard(-500, "x")], None, 0),
    ],
)
def test_how_long_it_is(events: list[Heard], ended: float | None, length: int) -> None:
    assert story(*events, ended=ended).length == length


def test_what_comes_before_the_start_is_at_the_start() -> None:
    (found,) = story(says(-500, "caller")).utterances
    assert found.start == 0
