"""What is said to gateways and their router, and what they answer."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from actors.gateway.stream import Streaming
from supervisor.mailbox import Ask, Message, Overflow
from supervisor.process import Exit

Json = dict[str, Any]


class CallView(msgspec.Struct, frozen=True):
    """A call that is in progress; `since` is RFC 3339."""

    call_id: str
    direction: str
    peer: str
    state: str
    since: str


class GatewayView(msgspec.Struct, frozen=True):
    """A gateway as others see it. The first five fields are those of contracts/gateway.md."""

    gw_state: str
    gw_id: str
    recording_duration: str
    transcript_progress: str
    detail: str
    state: str
    main_app: str
    room: str
    sip: str | None
    pid: int | None
    restarts: int
    changed: str
    calls: list[CallView]


class Started(msgspec.Struct, frozen=True):
    """Answer of a start: contracts/gateway.md."""

    processing_state: str
    gw_id: str


class Stopped(msgspec.Struct, frozen=True):
    """Answer of a stop: `stopped`, or `stopping` while the grace is not over."""

    processing_state: str


class Acknowledged(msgspec.Struct, frozen=True):
    """Answer of a command: what the gateway said."""

    ack: bool
    received: Any


class Page(msgspec.Struct, frozen=True):
    """Some gateways in the order of their ids, and where the next page begins."""

    gateways: list[GatewayView]
    next: str | None


# -- to the router (all name a gateway; it hands them on) -------------------------


@dataclass(frozen=True, slots=True)
class StartGateway(Ask[Started]):
    """Start a gateway. `request` is the whole body, `key` the client's idempotency key."""

    gw_id: str
    room: str
    main_app: str
    request: Json = field(repr=False)
    key: str | None = None


@dataclass(frozen=True, slots=True)
class StopGateway(Ask[Stopped]):
    """Stop a gateway; `force` kills at once."""

    gw_id: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class CommandGateway(Ask[Acknowledged]):
    """Hand a command to a gateway."""

    gw_id: str
    payload: Json


@dataclass(frozen=True, slots=True)
class GetGateway(Ask[GatewayView]):
    """How a gateway is."""

    gw_id: str


@dataclass(frozen=True, slots=True)
class ListGateways(Ask[Page]):
    """Gateways after an id, of a state where one is given."""

    after: str
    limit: int
    state: str | None


@dataclass(frozen=True, slots=True)
class Idle(Message):
    """From a gateway that has been down for a while: it can be put away.

    `said` is when, by trio's clock: what was asked of it since then counts for more.
    """

    gw_id: str
    said: float


@dataclass(frozen=True, slots=True)
class SlotTaken(Message):
    """From a gateway that found its ports used by others: it wants another slot."""

    gw_id: str
    slot: int


@dataclass(frozen=True, slots=True)
class Leftovers(Message):
    """From the router's look at the disk: gateways with recordings that were not finished."""

    gw_ids: tuple[str, ...]


RouterMessage = (
    StartGateway
    | StopGateway
    | CommandGateway
    | GetGateway
    | ListGateways
    | Idle
    | SlotTaken
    | Leftovers
)

# -- to a gateway: the router's, and reports of its own tasks ----------------------


@dataclass(frozen=True, slots=True)
class UseSlot(Message):
    """From the router: the ports to use instead; None when there are no others."""

    slot: int | None


@dataclass(frozen=True, slots=True)
class StartWithSlot(Ask[Started]):
    """A start with the ports that the router has set aside for it."""

    start: StartGateway
    slot: int


@dataclass(frozen=True, slots=True)
class ProfileChanged(Message):
    """The configuration of its profile is another now: start again when there is no call."""


@dataclass(frozen=True, slots=True)
class LaunchReady(Message):
    """What was launched is ready."""

    generation: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LaunchEnded(Message):
    """What was launched is gone, or never came up (`reason` says why)."""

    generation: int
    reason: str
    exit: Exit | None
    port_taken: bool = False


@dataclass(frozen=True, slots=True)
class RetryNow(Message):
    """The backoff is over."""

    generation: int


@dataclass(frozen=True, slots=True)
class RelaunchNow(Message):
    """What ran under the old profile is gone."""

    generation: int


@dataclass(frozen=True, slots=True)
class StopOverdue(Message):
    """Whoever asked for the stop has waited long enough to be told `stopping`."""

    generation: int


@dataclass(frozen=True, slots=True)
class LingerOver(Message):
    """It has been down for the linger time, if nothing happened since."""

    generation: int


@dataclass(frozen=True, slots=True)
class ControlEvent(Message):
    """An event from the control channel, as it came."""

    generation: int
    event: Json


@dataclass(frozen=True, slots=True)
class Redial(Message):
    """Time to call `dial` (again)."""

    generation: int


@dataclass(frozen=True, slots=True)
class RecordingFinished(Message):
    """A recording was made into a file that plays, or could not be (`error`)."""

    dump: str
    session: str
    path: str
    seconds: float
    size: int
    error: str | None


@dataclass(frozen=True, slots=True)
class TranscriptProgress(Message):
    """How much of a recording has been transcribed, in per cent."""

    overflow: ClassVar[Overflow] = Overflow.COALESCE
    path: str
    percent: int

    def coalesce_key(self) -> Hashable:
        """One for each recording."""
        return self.path


@dataclass(frozen=True, slots=True)
class TranscriptDone(Message):
    """A transcript was written, or could not be (`error`)."""

    path: str
    error: str | None


@dataclass(frozen=True, slots=True)
class StreamChanged(Message):
    """The RTMP stream of a call began, broke off or ended."""

    stream: Streaming
    state: str
    detail: str


GatewayMessage = (
    StartWithSlot
    | StopGateway
    | CommandGateway
    | GetGateway
    | UseSlot
    | ProfileChanged
    | LaunchReady
    | LaunchEnded
    | RetryNow
    | RelaunchNow
    | StopOverdue
    | LingerOver
    | ControlEvent
    | Redial
    | RecordingFinished
    | TranscriptProgress
    | TranscriptDone
    | StreamChanged
)
