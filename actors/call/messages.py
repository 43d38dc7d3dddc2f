"""What calls are asked, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import msgspec

from actors.call.machine import Status
from supervisor.mailbox import Ask, Message

Json = dict[str, Any]


class EventRow(NamedTuple):
    """One event, as it is kept: `ts` normal, `payload` canonical JSON, `key` tells it apart."""

    ts: str
    type: str
    payload: str
    key: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Events, and the data of the events of the log that tell of them when all of them are new."""

    rows: tuple[EventRow, ...]
    told: tuple[bytes, ...]


class Began(msgspec.Struct, frozen=True):
    """A call was kept, now or before (`new` is false)."""

    call_id: str
    new: bool


class Closed(msgspec.Struct, frozen=True):
    """A call's end was kept, now or before."""

    call_id: str
    status: str


@dataclass(frozen=True, slots=True)
class NewCall:
    """What a start says, and what the configuration has of its number."""

    provider: str
    provider_call_id: str
    provider_stream_id: str
    phone_number_id: str
    tenant_id: str
    agent_id: str
    agent_version: int | None
    from_number: str
    to_number: str
    caller: str
    callee: str
    started_at: str
    body_hash: str


# -- to the router ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartCall(Ask[Began]):
    """A call begins."""

    call: NewCall


@dataclass(frozen=True, slots=True)
class Look(Message):
    """Look for calls of which nobody has said anything for long."""


@dataclass(frozen=True, slots=True)
class Erase(Ask[Json]):
    """Erase all that there is of a number; `by` is the name of the token."""

    number: str
    by: str


# -- to a call, or to the router for one that is over -------------------------------------


@dataclass(frozen=True, slots=True)
class AppendEvents(Ask[int]):
    """Events of a call; how many of them are new."""

    call_id: str
    batch: Batch


@dataclass(frozen=True, slots=True)
class EndCall(Ask[Closed]):
    """A call is over."""

    call_id: str
    status: Status
    ended_at: str
    duration_seconds: float | None
    body_hash: str


@dataclass(frozen=True, slots=True)
class AddArtifacts(Ask[None]):
    """Where recordings and transcripts of a call are: by kind and name."""

    call_id: str
    artifacts: dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class SetTimeline(Ask[None]):
    """The timeline as the gateway made it."""

    call_id: str
    timeline: Json


CallMessage: TypeAlias = AppendEvents | EndCall | AddArtifacts | SetTimeline
RouterMessage: TypeAlias = StartCall | Look | Erase | CallMessage
