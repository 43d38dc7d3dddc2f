"""Numbers of a call: speakers, tools, the first response, silences, and what came of it."""

from __future__ import annotations

from typing import Any

import pytest

from actors.call.machine import Status
from actors.call.story import Heard
from actors.call.summary import outcome, silences, summarize
from tests.actors.call.stories import heard, says, story


def summed(*events: Heard, status: Status = Status.ENDED) -> dict[str, Any]:
    return summarize(story(*events), status, 2000)


def test_a_call_in_which_nothing_happened() -> None:
    assert summed() == {
        "outcome": "no_conversation",
        "utterances": 0,
        "speakers": {},
        "tools": {},
        "greeting_ms": None,
        "first_response_ms": None,
        "silence": {"count": 0, "total_ms": 0, "longest_ms": 0},
        "events": 0,
    }


def test_speakers_are_counted() -> None:
    found = summed(
        says(0, "AGENT", "Good morning to you", duration_ms=1500),
        says(2000, "CALLER", "Hi"),
        says(3000, "user", "it's  me", duration_ms=400),
        says(3500, "supervisor", "hm"),
    )
    assert found["utterances"] == 4
    assert found["speakers"] == {
        "agent": {"utterances": 1, "words": 4, "characters": 19, "talk_ms": 1500},
        "caller": {"utterances": 2, "words": 3, "characters": 10, "talk_ms": 400},
        "supervisor": {"utterances": 1, "words": 1, "characters": 2, "talk_ms": None},
    }


def test_tools_are_counted() -> None:
    found = summed(
        heard(0, "tool_call", name="search", id="1"),
        heard(100, "tool_result", id="1"),
        heard(200, "tool_call", name="search", id="2"),
        heard(500, "tool_error", id="2"),
        heard(600, "tool_call", name="search", id="3"),
        heard(700, "tool_call", name="ticket"),
    )
    assert found["tools"] == {
        "search": {
            "calls": 3,
            "errors": 1,
            "pending": 1,
            "latency_ms": {"mean": 200, "max": 300},
        },
        "ticket": {
            "calls": 1,
            "errors": 0,
            "pending": 1,
            "latency_ms": {"mean": None, "max": None},
        },
    }


# -- how soon ----------------------------------------


@pytest.mark.parametrize(
    ("events", "greeting", "response"),
    [
        ([says(900, "agent")], 900, None),
        ([says(900, "caller")], None, None),
        ([says(900, "caller"), says(1500, "agent")], 1500, 600),
        # From where the caller's words end, where that is told.
        ([says(900, "caller", duration_ms=400), says(1500, "agent")], 1500, 200),
        # A greeting is no response.
        ([says(100, "agent"), says(900, "caller"), says(1500, "agent")], 100, 600),
        # Only what the caller said first counts.
        (
            [says(900, "caller"), says(1000, "caller"), says(1500, "agent"), says(1600, "agent")],
            1500,
            600,
        ),
        # The agent begins before the caller has ended.
        ([says(900, "caller", duration_ms=2000), says(1500, "agent")], 1500, 0),
        # Told late, but said first.
        ([says(2000, "agent"), says(2500, "caller", start_ms=500)], 2000, 1500),
        ([says(900, "caller"), says(1500, "supervisor")], None, None),
    ],
)
def test_how_soon_it_is_answered(
    events: list[Heard], greeting: int | None, response: int | None
) -> None:
    found = summed(*events)
    assert (found["greeting_ms"], found["first_response_ms"]) == (greeting, response)


# -- silences ----------------------------------------


@pytest.mark.parametrize(
    ("spoken", "pauses"),
    [
        ([], []),
        ([(5000, 6000)], []),
        ([(0, 1000), (2999, 3500)], []),
        ([(0, 1000), (3000, 3500)], [(1000, 3000)]),
        ([(0, None), (3000, None), (4000, None)], [(0, 3000)]),
        # The first still speaks while the second begins and ends.
        ([(0, 9000), (1000, 2000), (10_500, 11_000)], []),
        ([(0, 9000), (1000, 2000), (11_000, 12_000)], [(9000, 11_000)]),
        ([(0, 3000), (2000, 6000), (8000, 9000)], [(6000, 8000)]),
        # Two who begin together.
        ([(0, 1000), (0, 5000), (6000, 7000)], []),
        # In the order of their beginning, not of their telling.
        ([(8000, 9000), (0, 1000), (4000, 5000)], [(1000, 4000), (5000, 8000)]),
    ],
)
def test_pauses_between_utterances(
    spoken: list[tuple[int, int | None]], pauses: list[tuple[int, int]]
) -> None:
    whole = story(
        *(
            says(0, ("caller", "agent")[i % 2], start_ms=start, end_ms=end)
            for i, (start, end) in enumerate(spoken)
        )
    )
    assert silences(whole, 2000) == pauses
    assert summarize(whole, Status.ENDED, 2000)["silence"] == {
        "count": len(pauses),
        "total_ms": sum(b - a for a, b in pauses),
        "longest_ms": max((b - a for a, b in pauses), default=0),
    }


# -- what came of it ----------------------------------------

TALK = (says(0, "agent"), says(500, "caller"))


@pytest.mark.parametrize(
    ("events", "status", "word"),
    [
        (TALK, Status.ENDED, "completed"),
        (TALK, Status.IN_PROGRESS, "in_progress"),
        (TALK, Status.FAILED, "failed"),
        (TALK, Status.CANCELLED, "cancelled"),
        ((), Status.ENDED, "no_conversation"),
        ((heard(0, "plivo_start"),), Status.ENDED, "no_conversation"),
        (TALK[:1], Status.ENDED, "caller_silent"),
        ((*TALK, heard(900, "tool_call", name="Transfer_Call")), Status.ENDED, "escalated"),
        ((*TALK, heard(900, "tool_call", name="escalate")), Status.FAILED, "failed"),
        ((*TALK, heard(900, "handoff")), Status.ENDED, "escalated"),
        # One that failed handed nobody over.
        ((*TALK, heard(900, "tool_call", name="escalate", status="error")), Status.ENDED,
         "completed"),
        # What the gateway says counts, and what it says last.
        ((*TALK, heard(900, "done", outcome="sold")), Status.FAILED, "sold"),
        ((heard(1, "a", outcome="sold"), heard(2, "b", outcome="lost")), Status.ENDED, "lost"),
        ((*TALK, heard(900, "done", outcome="")), Status.ENDED, "completed"),
        ((*TALK, heard(900, "done", outcome="x" * 65)), Status.ENDED, "completed"),
        ((*TALK, heard(900, "done", outcome=["sold"])), Status.ENDED, "completed"),
    ],
)  # fmt: skip
def test_what_came_of_it(events: tuple[Heard, ...], status: Status, word: str) -> None:
    assert outcome(story(*events), status) == word
    assert summed(*events, status=status)["outcome"] == word
