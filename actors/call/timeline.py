"""A call drawn along time: computed from its events where the gateway sent none. Pure."""

from __future__ import annotations

from typing import Any

from actors.call.story import Story, Utterance
from actors.call.summary import silences

Json = dict[str, Any]

VERSION = 1
# Pauses of one speaker up to this, in milliseconds, do not end a segment.
JOIN = 1000
# Of one call; there is no use in drawing more.
MOST_MARKERS = 2000


def compute(story: Story, started_at: str, silence: int) -> Json:
    """The same shape as voice gateways send it, with the silences beside it."""
    return {
        "version": VERSION,
        "origin": {"ts": started_at, "type": "call_start"},
        "duration_ms": story.length,
        "utterances": [
            {
                "speaker": u.speaker,
                "start_ms": u.start,
                "end_ms": u.start if u.end is None else u.end,
                "text": u.text,
                "event_indexes": [u.event],
            }
            for u in story.utterances
        ],
        "speaker_segments": _segments(story.utterances),
        "tool_calls": [
            {
                "name": t.name,
                "status": t.status,
                "start_ms": t.start,
                "end_ms": t.start if t.end is None else t.end,
                "latency_ms": t.latency,
                "args": t.args,
                "response_summary": t.answer,
            }
            for t in story.tools
        ],
        "markers": [
            {"type": kind, "offset_ms": at, "payload": payload}
            for kind, at, payload in story.markers[:MOST_MARKERS]
        ],
        "silences": [{"start_ms": a, "end_ms": b} for a, b in silences(story, silence)],
    }


def _segments(utterances: list[Utterance]) -> list[Json]:
    found: list[Json] = []
    for one in sorted(utterances, key=lambda u: u.start):
        end = one.start if one.end is None else one.end
        last = found[-1] if found else None
        if last and last["speaker"] == one.speaker and one.start - last["end_ms"] <= JOIN:
            last["end_ms"] = max(last["end_ms"], end)
        else:
            found.append({"speaker": one.speaker, "start_ms": one.start, "end_ms": end})
    return found
