"""A call drawn along time, where its gateway drew none."""

from __future__ import annotations

from actors.call.timeline import MOST_MARKERS, compute
from tests.actors.call.stories import at, heard, says, story


def test_one_that_has_everything() -> None:
    whole = story(
        heard(0, "plivo_start", stream="s1"),
        says(100, "AGENT", "Good morning", duration_ms=900),
        says(4000, "CALLER", "Hi"),
        heard(5000, "tool_call", name="search", args={"q": 1}),
        heard(5250, "tool_result", name="search", result="3 found"),
        ended=9000,
    )
    assert compute(whole, at(0), 2000) == {
        "version": 1,
        "origin": {"ts": "2025-12-31T10:00:00.000000Z", "type": "call_start"},
        "duration_ms": 9000,
        "utterances": [
            {
                "speaker": "agent",
                "start_ms": 100,
                "end_ms": 1000,
                "text": "Good morning",
                "event_indexes": [1],
            },
            {
                "speaker": "caller",
                "start_ms": 4000,
                "end_ms": 4000,
                "text": "Hi",
                "event_indexes": [2],
            },
        ],
        "speaker_segments": [
            {"speaker": "agent", "start_ms": 100, "end_ms": 1000},
            {"speaker": "caller", "start_ms": 4000, "end_ms": 4000},
        ],
        "tool_calls": [
            {
                "name": "search",
                "status": "ok",
                "start_ms": 5000,
                "end_ms": 5250,
                "latency_ms": 250,
                "args": {"q": 1},
                "response_summary": "3 found",
            }
        ],
        "markers": [{"type": "plivo_start", "offset_ms": 0, "payload": {"stream": "s1"}}],
        "silences": [{"start_ms": 1000, "end_ms": 4000}],
    }


def test_one_of_nothing_has_all_its_parts() -> None:
    drawn = compute(story(), at(0), 2000)
    assert drawn["duration_ms"] == 0
    parts = ("utterances", "speaker_segments", "tool_calls", "markers", "silences")
    assert [drawn[part] for part in parts] == [[], [], [], [], []]


def test_short_pauses_of_one_speaker_do_not_end_a_segment() -> None:
    whole = story(
        says(0, "caller", duration_ms=1000),
        says(2000, "caller", duration_ms=1000),
        says(4001, "caller", duration_ms=1000),
        says(5100, "agent", duration_ms=100),
        says(5300, "caller", duration_ms=100),
    )
    assert [
        (s["speaker"], s["start_ms"], s["end_ms"])
        for s in compute(whole, at(0), 2000)["speaker_segments"]
    ] == [
        ("caller", 0, 3000),
        ("caller", 4001, 5001),
        ("agent", 5100, 5200),
        ("caller", 5300, 5400),
    ]


def test_a_segment_ends_where_the_last_of_it_ends() -> None:
    whole = story(says(0, "caller", duration_ms=5000), says(1000, "caller", duration_ms=500))
    (segment,) = compute(whole, at(0), 2000)["speaker_segments"]
    assert segment == {"speaker": "caller", "start_ms": 0, "end_ms": 5000}


def test_there_are_only_so_many_markers() -> None:
    whole = story(*(heard(i, "tick") for i in range(MOST_MARKERS + 1)))
    assert len(compute(whole, at(0), 2000)["markers"]) == MOST_MARKERS
