"""Numbers of a call: per speaker and tool, how soon it was answered, silences. Pure."""

from __future__ import annotations

from typing import Any

from actors.call.machine import Status
from actors.call.story import Story, ToolCall, Utterance

Json = dict[str, Any]

# Tools and events that hand a call to a person.
_ESCALATES = {"escalate", "escalation", "transfer", "transfer_call", "handoff", "escalate_to_human"}


def summarize(story: Story, status: Status, silence: int) -> Json:
    """The summary; `silence` in milliseconds is the shortest pause that counts as one.

    `first_response_ms`: from what the caller said first to the agent's next words. `greeting_ms`:
    from the start to the agent's first words. None stands for what did not happen.
    """
    pauses = silences(story, silence)
    return {
        "outcome": outcome(story, status),
        "utterances": len(story.utterances),
        "speakers": _speakers(story.utterances),
        "tools": _tools(story.tools),
        "greeting_ms": next((u.start for u in story.utterances if u.speaker == "agent"), None),
        "first_response_ms": _first_response(story.utterances),
        "silence": {
            "count": len(pauses),
            "total_ms": sum(end - start for start, end in pauses),
            "longest_ms": max((end - start for start, end in pauses), default=0),
        },
        "events": len(story.markers) + len(story.utterances) + len(story.tools),
    }


def outcome(story: Story, status: Status) -> str:
    """What came of it, in a word.

    What the gateway says (`outcome` in an event's payload) counts. Else: `cancelled`, `failed`,
    `escalated`, `no_conversation` (nobody said anything), `caller_silent`, `completed`;
    `in_progress` while it is.
    """
    for _type, _at, payload in reversed(story.markers):
        said = payload.get("outcome")
        if isinstance(said, str) and 0 < len(said) <= 64:
            return said
    if status is not Status.ENDED:
        return str(status.value)
    names = {tool.name.lower() for tool in story.tools if tool.status != "error"}
    if names & _ESCALATES or any(kind.lower() in _ESCALATES for kind, _, _ in story.markers):
        return "escalated"
    if not story.utterances:
        return "no_conversation"
    if not any(u.speaker == "caller" for u in story.utterances):
        return "caller_silent"
    return "completed"


def silences(story: Story, least: int) -> list[tuple[int, int]]:
    """Pauses between two utterances that are that long."""
    found: list[tuple[int, int]] = []
    heard = sorted(story.utterances, key=lambda u: u.start)
    # Somebody may still speak while another has begun and ended.
    until: int | None = None
    for utterance in heard:
        if until is not None and utterance.start - until >= least:
            found.append((until, utterance.start))
        ends = utterance.start if utterance.end is None else utterance.end
        until = ends if until is None else max(until, ends)
    return found


def _speakers(utterances: list[Utterance]) -> Json:
    found: Json = {}
    for utterance in utterances:
        one = found.setdefault(
            utterance.speaker, {"utterances": 0, "words": 0, "characters": 0, "talk_ms": None}
        )
        one["utterances"] += 1
        one["words"] += len(utterance.text.split())
        one["characters"] += len(utterance.text)
        if utterance.end is not None:
            one["talk_ms"] = (one["talk_ms"] or 0) + utterance.end - utterance.start
    return found


def _tools(tools: list[ToolCall]) -> Json:
    found: Json = {}
    for tool in tools:
        one = found.setdefault(
            tool.name,
            {"calls": 0, "errors": 0, "pending": 0, "latency_ms": {"mean": None, "max": None}},
        )
        one["calls"] += 1
        one["errors"] += tool.status == "error"
        one["pending"] += tool.status == "pending"
    latencies: dict[str, list[int]] = {}
    for tool in tools:
        if tool.latency is not None:
            latencies.setdefault(tool.name, []).append(tool.latency)
    for name, measured in latencies.items():
        mean = round(sum(measured) / len(measured))
        found[name]["latency_ms"] = {"mean": mean, "max": max(measured)}
    return found


def _first_response(utterances: list[Utterance]) -> int | None:
    heard = sorted(utterances, key=lambda u: u.start)
    asked = next((u for u in heard if u.speaker == "caller"), None)
    if asked is None:
        return None
    ends = asked.start if asked.end is None else asked.end
    answer = next((u.start for u in heard if u.speaker == "agent" and u.start >= asked.start), None)
    return None if answer is None else max(answer - ends, 0)
