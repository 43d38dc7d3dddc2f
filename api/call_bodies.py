"""What the operations of runtime-config-and-calls.md take and answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from actors.call.linked import Linked
from actors.call.lookup import KeptEvent
from actors.call.machine import Status
from actors.call.messages import Json
from actors.call.rejected import Rejection
from actors.call.stamp import PATTERN

NEWEST = 2**62

# What it must be is looked at by `stamp` in call_parts.py, which can say what is wrong.
Stamp = Annotated[str, msgspec.Meta(max_length=64, extra_json_schema={"pattern": PATTERN})]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Words = Annotated[str, msgspec.Meta(max_length=256)]
Address = Annotated[str, msgspec.Meta(max_length=4096)]


# -- bodies ------------------------------------------------------------------------------


class StartBody(msgspec.Struct, kw_only=True):
    """A call begins. Fields that are not named here are taken and have no effect."""

    provider: Name
    provider_call_id: Name
    provider_stream_id: Words = ""
    phone_number_id: Words = ""
    from_number: Words = ""
    to_number: Words = ""
    started_at: Stamp


class EventBody(msgspec.Struct, kw_only=True):
    """One event of a call."""

    ts: Stamp
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    payload: dict[str, Any] | None = None
    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None


class EventsBody(msgspec.Struct, kw_only=True):
    """A batch: all of it is taken, or nothing."""

    events: list[EventBody]


class EndBody(msgspec.Struct, kw_only=True):
    """How a call ended."""

    ended_at: Stamp
    status: Literal["ended", "failed", "cancelled"]
    duration_seconds: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None


class ArtifactsBody(msgspec.Struct, kw_only=True):
    """Where recordings and transcripts are, by name; null is as good as absent."""

    recording: dict[str, Address | None] | None = None
    transcript: dict[str, Address | None] | None = None


class UtteranceBody(msgspec.Struct, kw_only=True):
    """Milliseconds from the start of the call."""

    speaker: str
    start_ms: float
    end_ms: float | None = None
    text: str
    event_indexes: list[int] | None = None


class SegmentBody(msgspec.Struct, kw_only=True):
    """Somebody speaks."""

    speaker: str
    start_ms: float
    end_ms: float | None = None
    energy_avg: float | None = None


class ToolCallBody(msgspec.Struct, kw_only=True):
    """A tool was used."""

    name: str
    status: str
    start_ms: float
    end_ms: float | None = None
    latency_ms: float | None = None
    args: Any = None
    response_summary: Any = None
    mcp_endpoint: str | None = None
    mcp_session_id: str | None = None


class MarkerBody(msgspec.Struct, kw_only=True):
    """Something else that happened; `kind` is another word for `type`."""

    offset_ms: float
    type: str = ""
    kind: str = ""
    payload: Any = None


class OriginBody(msgspec.Struct, kw_only=True):
    """What the times of a timeline are counted from."""

    ts: Stamp | None = None
    type: str = "event"


class Drawn(msgspec.Struct, kw_only=True):
    """A timeline as voice gateways send it."""

    version: int = 1
    duration_ms: float | None = None
    generated_at: Stamp | None = None
    origin: OriginBody | None = None
    utterances: list[UtteranceBody] = []
    speaker_segments: list[SegmentBody] = []
    tool_calls: list[ToolCallBody] = []
    markers: list[MarkerBody] = []


class TimelineBody(msgspec.Struct, kw_only=True):
    """Body of a timeline."""

    timeline: Drawn


class RejectionError(msgspec.Struct, kw_only=True):
    """Why a call was not taken: what resolving its number was answered with."""

    code: Name
    message: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    action: Words | None = None
    retryable: bool = False
    details: Any = None


class RejectionBody(msgspec.Struct, kw_only=True):
    """A voice gateway did not take a call."""

    provider: Words = ""
    provider_call_id: Words = ""
    session_external_id: Words = ""
    phone_number: Words = ""
    endpoint_address: Words = ""
    from_number: Words = ""
    from_address: Words = ""
    to_number: Words = ""
    to_address: Words = ""
    direction: Words = ""
    channel_key: Words = ""
    channel_type: Words = ""
    occurred_at: Stamp | None = None
    error: RejectionError


class EraseBody(msgspec.Struct, kw_only=True):
    """Whose data is to be erased."""

    number: Annotated[str, msgspec.Meta(min_length=3, max_length=64)]


# -- queries -----------------------------------------------------------------------------


class ResolveQuery(msgspec.Struct):
    """What a prompt may say of the call that is about to begin."""

    from_number: Words = ""
    to_number: Words = ""
    provider: Words = ""
    provider_call_id: Words = ""


class ListQuery(msgspec.Struct):
    """Query of a list of calls: `before` is the `next` of the page before; times RFC 3339."""

    status: Literal["in_progress", "ended", "failed", "cancelled"] | None = None
    tenant_id: Words = ""
    phone_number_id: Words = ""
    number: Words = ""
    outcome: Words = ""
    provider_call_id: Words = ""
    since: Stamp | None = None
    until: Stamp | None = None
    before: Annotated[int, msgspec.Meta(ge=1, le=NEWEST)] = NEWEST
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50


class EventsQuery(msgspec.Struct):
    """Query of a call's events: `after` is the `next` of the page before."""

    after: Annotated[str, msgspec.Meta(pattern=r"^([^/]{27}/[0-9]{1,10})?$(?!\n)")] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1000


class TranscriptQuery(msgspec.Struct):
    """`text` for people, `jsonl` for programs."""

    format: Literal["text", "jsonl"] = "text"


class PageQuery(msgspec.Struct):
    """Query of a list: `before` is the `next` of the page before."""

    code: Words = ""
    tenant_id: Words = ""
    before: Annotated[int, msgspec.Meta(ge=1, le=NEWEST)] = NEWEST
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50


# -- answers -----------------------------------------------------------------------------


class CallId(msgspec.Struct, kw_only=True):
    """Answer to a start, an end, artifacts, a timeline."""

    call_id: str


class Ok(msgspec.Struct, kw_only=True):
    """Answer to events."""

    status: Literal["ok"] = "ok"


class CallView(msgspec.Struct, kw_only=True):
    """A call. `summary` only of one call; `files` are this appliance's own that belong to it."""

    call_id: str
    status: Status
    provider: str
    provider_call_id: str
    provider_stream_id: str
    phone_number_id: str
    tenant_id: str
    agent_id: str
    agent_version: int | None
    from_number: str
    to_number: str
    started_at: str
    ended_at: str | None
    reason: str
    outcome: str
    duration_seconds: float | None
    duration_computed: float | None
    duration_differs: bool
    events: int
    artifacts: Json
    summary: Json | None = None
    files: list[Linked] | None = None


class ListAnswer(msgspec.Struct, kw_only=True):
    """Calls, the newest first."""

    calls: list[CallView]
    next: int | None


class EventsAnswer(msgspec.Struct, kw_only=True):
    """Events of a call in the order of their times."""

    events: list[KeptEvent]
    next: str | None


class RejectionsAnswer(msgspec.Struct, kw_only=True):
    """Calls that were not taken, the newest first."""

    rejections: list[Rejection]
    next: int | None


class Reported(msgspec.Struct, kw_only=True):
    """A report was kept."""

    id: int
    status: Literal["ok"] = "ok"


class ErasureAnswer(msgspec.Struct, kw_only=True):
    """What was erased."""

    erased_at: str
    calls: int
    events: int
    rejections: int
    files: int


class ErasuresAnswer(msgspec.Struct, kw_only=True):
    """That it was done, the newest first."""

    erasures: list[Json]
    next: int | None
