"""Whatever a voice gateway reports of a call can be read: what was kept is not in the way."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.call import story, timeline, transcript
from actors.call.machine import Status
from actors.call.story import Heard
from actors.call.summary import summarize

START = "2026-01-01T08:00:00.000000Z"
KINDS = ["transcript", "tool_call", "tool_result", "tool_error", "escalation", "utterance", "other"]
KEYS = [
    *("text", "tag", "speaker", "final", "start_ms", "end_ms", "duration_ms", "name", "id"),
    *("status", "latency_ms", "error", "is_error", "args", "result", "outcome", "transcript"),
]
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)  # fmt: skip
payloads = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), anything, max_size=6)
seconds = st.integers(-5, 100_000)


def at(second: int) -> str:
    hours, rest = divmod(max(second, 0), 3600)
    day, hour = divmod(hours, 24)
    return f"2026-01-{day + 1:02}T{hour:02}:{rest // 60:02}:{rest % 60:02}.000001Z"


@settings(deadline=None, derandomize=True, database=None, max_examples=300)
@given(
    st.lists(st.tuples(seconds, st.sampled_from(KINDS), payloads), max_size=8),
    st.none() | seconds,
    st.sampled_from(Status),
)
def test_any_events_have_a_story_and_numbers(
    told: list[tuple[int, str, dict[str, Any]]], end: int | None, status: Status
) -> None:
    heard = [Heard(at(second), kind, payload) for second, kind, payload in sorted(told, key=str)]
    heard.sort(key=lambda event: event.ts)
    found = story.read(START, None if end is None else at(end), heard)
    assert len(found.utterances) + len(found.markers) <= len(heard)
    summary = summarize(found, status, 2000)
    assert isinstance(summary["outcome"], str)
    assert summary["silence"]["total_ms"] >= summary["silence"]["longest_ms"] >= 0
    drawn = timeline.compute(found, START, 2000)
    assert len(drawn["utterances"]) == len(found.utterances)
    msgspec.json.encode([summary, drawn])
    assert transcript.text(found).count("\n") == len(found.utterances)
    assert transcript.json_lines(found).count(b"\n") == len(found.utterances)
