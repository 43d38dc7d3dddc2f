"""The protocol of webhooks: what is asked of an endpoint, and what its own tasks report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from actors.webhook.machine import Next, Outcome
from actors.webhook.outbox import Item
from supervisor.mailbox import Ask, Message, Overflow

# -- what is answered -----------------------------------------------------------


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint.

    `state`: `active`, `away` (it does not answer), `disabled` (`reason` says why), `off` (by the
    configuration) or `removed` from it.
    `behind` is how many events of the log it has not looked at; `cursor` a resume token.
    """

    name: str
    state: str
    reason: str
    since: str
    url: str
    topics: list[str]
    pending: int
    dead: int
    cursor: str
    behind: int
    last_success: str
    last_failure: str
    last_error: str


class Endpoints(msgspec.Struct, frozen=True):
    """All endpoints, in the order of their names."""

    webhooks: list[EndpointView]


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery and its last try: `seconds` is how long it took, `due` when the next is."""

    id: str
    seq: int
    type: str
    subject: str
    state: str
    attempts: int
    due: str
    status: int | None
    error: str
    answer: str
    seconds: float
    created: str
    changed: str


class Deliveries(msgspec.Struct, frozen=True):
    """A page, the newest first; `next` is the `after` of the following one, or None."""

    deliveries: list[DeliveryView]
    next: str | None


class Redriven(msgspec.Struct, frozen=True):
    """How many dead letters wait to be sent again, and how many are dead still."""

    redriven: int
    left: int


class Enabled(msgspec.Struct, frozen=True):
    """`was_disabled` is false when there was nothing to do."""

    name: str
    was_disabled: bool


class Pinged(msgspec.Struct, frozen=True):
    """What came back: the status, or why there is none, and the beginning of the answer."""

    ok: bool
    status: int | None
    error: str
    answer: str
    seconds: float


# -- asked by the API, and handed on by the router ---------------------------------


@dataclass(frozen=True, slots=True)
class ListEndpoints(Ask[Endpoints]):
    """How all endpoints are."""


@dataclass(frozen=True, slots=True)
class ListDeliveries(Ask[Deliveries]):
    """A page of the delivery log, before the number `before`."""

    name: str
    state: str | None
    before: int
    limit: int


@dataclass(frozen=True, slots=True)
class Redrive(Ask[Redriven]):
    """Send dead letters again: those with these ids, or the oldest."""

    name: str
    ids: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Enable(Ask[Enabled]):
    """Go on with an endpoint that was disabled; `caller` is who asks."""

    name: str
    caller: str


@dataclass(frozen=True, slots=True)
class Ping(Ask[Pinged]):
    """Send a `webhook.test` now, and say what came back."""

    name: str


@dataclass(frozen=True, slots=True)
class Apply(Ask[None]):
    """The configuration is another: bring the endpoints to it."""


# -- what an endpoint's own tasks report ----------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened(Message):
    """Its row is read, and what was pending: (item, seconds until it is due)."""

    disabled: str
    since: str
    cursor: int
    dead: int
    pending: Sequence[tuple[Item, float]]


@dataclass(frozen=True, slots=True)
class Queued(Message):
    """These were added to the outbox's rows."""

    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class Settled(Message):
    """A try is over and its row says so; `after` is None when the row was gone."""

    item: Item
    outcome: Outcome | None
    after: Next | None
    disabled: str = ""


@dataclass(frozen=True, slots=True)
class Due(Message):
    """Something's time has come."""

    overflow: ClassVar[Overflow] = Overflow.COALESCE


@dataclass(frozen=True, slots=True)
class Counted(Message):
    """So many dead letters are kept."""

    dead: int


EndpointMessage = Redrive | Enable | Ping | Opened | Queued | Settled | Due | Counted
WebhookMessage = ListEndpoints | ListDeliveries | Redrive | Enable | Ping | Apply
