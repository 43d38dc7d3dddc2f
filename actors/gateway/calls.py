"""What baresip's events say of calls, as events of the log. Pure.

Answers and events come in any order, the answer to `dial` names no call, and an automatically
answered call has no CALL_INCOMING: a call begins here with the first event that names it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from actors.gateway.call_records import KeptCall, seconds_between
from actors.gateway.messages import CallView, Json
from supervisor.event import timestamp

# Statistics of a running call are told at most this often, in seconds.
STATISTICS_EVERY = 10.0
MAX_CALLS = 64

_STATUS = re.compile(
    r"\(ESTABLISHED\).*?peer_uri:\s*<?([^>\s]+)>?.*?\bid=(\S+).*?direction:\s*(\w+)", re.DOTALL
)


def missed(status: str) -> Json | None:
    """The event of a call that was established before anybody listened, from `callstat`."""
    match = _STATUS.search(status)
    if match is None:
        return None
    peer, call_id, direction = match.groups()
    return {
        "type": "CALL_ESTABLISHED",
        "id": call_id,
        "peeruri": peer,
        "direction": direction.lower(),
    }


Told = tuple[str, Json]

_REGISTRATION = {
    "REGISTERING": "gateway.registering",
    "REGISTER_OK": "gateway.registered",
    "REGISTER_FAIL": "gateway.register_failed",
    "UNREGISTERING": "gateway.unregistering",
}
_RINGING = ("CALL_INCOMING", "CALL_RINGING", "CALL_PROGRESS")
# Not of baresip: its calls are about to be asked for, because its channel was away, and what it
# listed. A call that begins in between is in no list, and is not over for that.
CALLS_ASKED, CALLS_NOW = "CALLS_ASKED", "CALLS_NOW"
_BEGINNINGS = (*_RINGING, "CALL_ESTABLISHED")


@dataclass(slots=True)
class Call:
    """A call in progress."""

    call_id: str
    direction: str
    peer: str
    state: str = "new"
    since: str = field(default_factory=timestamp)
    established_at: float | None = None
    statistics: Json = field(default_factory=dict)
    told_statistics: float = float("-inf")

    def facts(self) -> Json:
        """What every event of a call says."""
        return {"call_id": self.call_id, "direction": self.direction, "peer": self.peer}


class Calls:
    """The calls of one gateway."""

    def __init__(self) -> None:
        self._calls: dict[str, Call] = {}
        # Ended lately: what still comes of them, also by a list that was asked for before, is late.
        self._over: deque[str] = deque(maxlen=MAX_CALLS)
        self._asked: list[str] = []

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def talking(self) -> bool:
        """Is any call established?"""
        return any(c.established_at is not None for c in self._calls.values())

    def views(self) -> list[CallView]:
        """For the status."""
        return [
            CallView(c.call_id, c.direction, c.peer, c.state, c.since) for c in self._calls.values()
        ]

    def peer(self) -> str | None:
        """The peer of the newest call: whom a chat message is for."""
        return next((c.peer for c in reversed(self._calls.values())), None)

    def clear(self, now: float, reason: str) -> list[Told]:
        """The gateway is gone, and its calls with it."""
        return [told for call_id in list(self._calls) for told in self._end(call_id, reason, now)]

    def resume(self, kept: Iterable[KeptCall], wall: str, now: float) -> None:
        """Take up calls that go on since before. `wall` and `now` are the same moment."""
        for row in kept:
            call = Call(row.call_id, row.direction, row.peer, "ringing", row.since)
            if row.established is not None:
                call.state = "established"
                call.established_at = now - seconds_between(row.established, wall)
            self._calls[row.call_id] = call

    def take(self, event: Json, now: float) -> list[Told]:
        """Turn one event of the control channel into events of the log."""
        kind = str(event.get("type", ""))
        param = str(event.get("param", ""))
        if kind in _REGISTRATION:
            return [(_REGISTRATION[kind], {"account": event.get("accountaor"), "detail": param})]
        if kind == CALLS_ASKED:
            self._asked = list(self._calls)
            return []
        if kind == CALLS_NOW:
            return self._only(str(event.get("data", "")), now)
        call_id = event.get("id")
        if not kind.startswith("CALL_") or not isinstance(call_id, str) or call_id in self._over:
            return []
        return self._of_call(call_id, kind, param, event, now)

    def _of_call(self, call_id: str, kind: str, param: str, event: Json, now: float) -> list[Told]:
        if kind == "CALL_CLOSED":
            return self._closed(call_id, event, param, now)
        call = self._calls.get(call_id)
        if call is None:
            # Statistics may come after the end; they make no call.
            if kind not in _BEGINNINGS or len(self._calls) >= MAX_CALLS:
                return []
            call = self._calls[call_id] = Call(
                call_id, str(event.get("direction", "")), str(event.get("peeruri", ""))
            )
        if kind in _BEGINNINGS and call.established_at is not None:
            return []  # late, or told already: baresip was also asked for what had been missed
        if kind in _RINGING:
            call.state = "ringing"
            return [("gateway.call_ringing", call.facts())]
        if kind == "CALL_ESTABLISHED":
            call.state, call.established_at = "established", now
            return [("gateway.call_established", call.facts())]
        if kind == "CALL_DTMF_START":
            return [("gateway.dtmf", {**call.facts(), "key": param})]
        if kind == "CALL_RTCP":
            return self._statistics(call, event, now)
        return []

    def _only(self, listed: str, now: float) -> list[Told]:
        """Close the calls whose peers are not listed any more: nobody told of their end."""
        peers = set(listed.split())
        gone = [c for c in self._asked if c in self._calls and self._calls[c].peer not in peers]
        reason = "it ended while the control channel was away"
        return [told for call_id in gone for told in self._end(call_id, reason, now)]

    def _closed(self, call_id: str, event: Json, reason: str, now: float) -> list[Told]:
        if call_id not in self._calls:
            # A call refused before it rang, or one whose beginning was lost.
            self._calls[call_id] = Call(
                call_id, str(event.get("direction", "")), str(event.get("peeruri", ""))
            )
        return self._end(call_id, reason, now)

    def _end(self, call_id: str, reason: str, now: float) -> list[Told]:
        call = self._calls.pop(call_id)
        self._over.append(call_id)
        seconds = 0.0 if call.established_at is None else round(now - call.established_at, 3)
        data = {**call.facts(), "reason": reason, "seconds": seconds}
        if call.statistics:
            data["rtp"] = call.statistics
        return [("gateway.call_closed", data)]

    def _statistics(self, call: Call, event: Json, now: float) -> list[Told]:
        statistics = event.get("rtcp_stats")
        if not isinstance(statistics, dict):
            return []
        call.statistics = statistics
        if now - call.told_statistics < STATISTICS_EVERY:
            return []
        call.told_statistics = now
        return [("gateway.rtp_statistics", {**call.facts(), "rtp": statistics})]
