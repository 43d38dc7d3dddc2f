"""What happened in a call, read from its events. Pure.

Voice gateways name things in more than one way: what is known of their ways is here, and what is
not known becomes a marker. Times are milliseconds from the start of the call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actors.call.stamp import milliseconds

Json = dict[str, Any]

_CALLER = {"caller", "user", "customer", "human", "inbound"}
_AGENT = {"agent", "assistant", "bot", "model", "ai", "outbound"}
_SAYS = {"transcript", "utterance"}
_CALLS = {"tool_call", "function_call"}
_ANSWERS = {"tool_result", "tool_response", "tool_call_result", "tool_error", "function_result"}
# Said of a tool that has no answer yet.
_UNDER_WAY = {"started", "pending", "running", "in_progress", "requested", "queued"}
_FAILED = {"error", "failed", "failure", "timeout", "denied"}


class Heard(NamedTuple):
    """One event as it was kept."""

    ts: str
    type: str
    payload: Mapping[str, Any]


@dataclass(slots=True)
class Utterance:
    """Somebody says something. `end` is None where nobody told how long it took."""

    speaker: str
    start: int
    end: int | None
    text: str
    event: int


@dataclass(slots=True)
class ToolCall:
    """A tool is used; `status` is `pending` until an answer of it was told."""

    name: str
    start: int
    key: str = ""
    end: int | None = None
    status: str = "pending"
    latency: int | None = None
    args: Any = None
    answer: Any = None


@dataclass(slots=True)
class Story:
    """All of a call. `length`: up to its end, or to the last event where it has none."""

    length: int
    utterances: list[Utterance] = field(default_factory=list)
    tools: list[ToolCall] = field(default_factory=list)
    markers: list[tuple[str, int, Mapping[str, Any]]] = field(default_factory=list)
    _waiting: dict[tuple[str, str], deque[ToolCall]] = field(default_factory=dict)

    def waits(self, call: ToolCall) -> None:
        """A tool's answer is still to come."""
        for place in (("id", call.key), ("name", call.name)):
            if place[1]:
                self._waiting.setdefault(place, deque()).append(call)

    def pending(self, key: str, name: str) -> ToolCall | None:
        """The first that waits for an answer with this id, or, where one has none, this name."""
        if key and (found := self._first(("id", key), lambda _call: True)):
            return found
        return self._first(("name", name), lambda call: not (key and call.key))

    def _first(self, place: tuple[str, str], fits: Callable[[ToolCall], bool]) -> ToolCall | None:
        waiting = self._waiting.get(place, deque())
        while waiting and waiting[0].status != "pending":
            waiting.popleft()
        return next((call for call in waiting if call.status == "pending" and fits(call)), None)


def read(started_at: str, ended_at: str | None, events: Sequence[Heard]) -> Story:
    """Read events that are in the order of their times."""
    story = Story(0)
    at = 0
    for index, event in enumerate(events):
        at = max(milliseconds(started_at, event.ts), 0)
        if event.type in _SAYS:
            _says(story, index, at, event)
        elif event.type in _CALLS:
            _uses(story, at, event.payload)
        elif event.type in _ANSWERS:
            _answers(story, at, event)
        else:
            story.markers.append((event.type, at, event.payload))
    story.length = at if ended_at is None else max(milliseconds(started_at, ended_at), 0)
    return story


def speaker(name: str) -> str:
    """`caller`, `agent`, or whoever else it is, in small letters."""
    lowered = name.strip().lower()
    return "caller" if lowered in _CALLER else "agent" if lowered in _AGENT else lowered


def _says(story: Story, index: int, at: int, event: Heard) -> None:
    payload = event.payload
    text = _text(payload, "text", "transcript", "content")
    who = _text(payload, "tag", "speaker", "role", "source")
    unfinished = payload.get("final") is False or payload.get("is_final") is False
    if unfinished or not text.strip() or not who:
        if not unfinished:
            story.markers.append((event.type, at, payload))
        return
    start = _number(payload, "start_ms")
    end = _number(payload, "end_ms")
    lasted = _number(payload, "duration_ms")
    start = at if start is None else start
    if end is None and lasted is not None:
        end = start + lasted
    if end is not None and end < start:
        end = None
    story.utterances.append(Utterance(speaker(who), start, end, text, index))


def _uses(story: Story, at: int, payload: Mapping[str, Any]) -> None:
    call = ToolCall(
        _text(payload, "name", "tool_name", "tool", "function") or "unnamed",
        at,
        _text(payload, "id", "tool_call_id", "call_id"),
        args=payload.get("args", payload.get("arguments", payload.get("input"))),
    )
    story.tools.append(call)
    story.waits(call)
    if str(payload.get("status", "")).lower() in _UNDER_WAY:
        return
    if "status" in payload or _number(payload, "latency_ms", "duration_ms") is not None:
        _done(call, at, payload, failed=False)


def _answers(story: Story, at: int, event: Heard) -> None:
    payload = event.payload
    key = _text(payload, "id", "tool_call_id", "call_id")
    name = _text(payload, "name", "tool_name", "tool", "function")
    call = story.pending(key, name)
    if call is None:
        call = ToolCall(name or "unnamed", at, key)
        story.tools.append(call)
    _done(call, at, payload, failed=event.type == "tool_error")


def _done(call: ToolCall, at: int, payload: Mapping[str, Any], *, failed: bool) -> None:
    latency = _number(payload, "latency_ms", "duration_ms")
    if latency is None and at > call.start:
        latency = at - call.start
    call.latency = latency
    call.end = max(at, call.start + (latency or 0))
    status = str(payload.get("status", "")).lower()
    wrong = failed or status in _FAILED or payload.get("is_error") is True
    call.status = "error" if wrong or payload.get("error") else "ok"
    call.answer = payload.get("response_summary", payload.get("result", payload.get("error")))


def _text(payload: Mapping[str, Any], *names: str) -> str:
    for name in names:
        value = payload.get(name)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return ""


def _number(payload: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = payload.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
            return int(value)
    return None
