"""Transcripts: a line for each utterance, for people and for programs."""

from __future__ import annotations

import json

import pytest

from actors.call.transcript import json_lines, text
from tests.actors.call.stories import heard, says, story

TALK = story(
    says(1000, "AGENT", "Good morning", duration_ms=900),
    heard(1500, "tool_call", name="search"),
    says(65_999, "CALLER", "  Hi,\n it's\tme — Jürgen "),
    says(3_661_000, "supervisor", "hm"),
)


def test_people_read_lines_with_clocks() -> None:
    assert text(TALK) == (
        "[00:00:01] Agent: Good morning\n"
        "[00:01:05] Caller: Hi, it's me — Jürgen\n"
        "[01:01:01] Supervisor: hm\n"
    )


def test_programs_read_an_object_a_line() -> None:
    raw = json_lines(TALK)
    assert raw.endswith(b"\n")
    assert [json.loads(line) for line in raw.splitlines()] == [
        {"speaker": "agent", "start_ms": 1000, "end_ms": 1900, "text": "Good morning"},
        {
            "speaker": "caller",
            "start_ms": 65_999,
            "end_ms": None,
            "text": "  Hi,\n it's\tme — Jürgen ",
        },
        {"speaker": "supervisor", "start_ms": 3_661_000, "end_ms": None, "text": "hm"},
    ]


@pytest.mark.parametrize("nothing", [text, json_lines])
def test_where_nobody_spoke_it_is_empty(nothing: object) -> None:
    assert callable(nothing)
    assert not nothing(story(heard(5, "plivo_start")))
