"""Webhooks for operators: how each endpoint is, what it was sent, and what to do about it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from actors.webhook.messages import (
    Deliveries,
    Enable,
    Enabled,
    Endpoints,
    ListDeliveries,
    ListEndpoints,
    Ping,
    Pinged,
    Redrive,
    Redriven,
    WebhookMessage,
)
from api.errors import SYSTEM, ApiError
from api.operation import Call, Nothing, Operation
from config.webhooks import LONGEST_TIMEOUT
from supervisor.ref import Ref

# A reload that is being applied comes first.
TIMEOUT = 25.0
NEWEST = 2**62


class DeliveriesQuery(msgspec.Struct):
    """Query of the delivery log: `after` is the `next` of the page before."""

    after: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100
    state: Literal["pending", "delivered", "dead"] | None = None


class RedriveRequest(msgspec.Struct):
    """Ids of dead letters; without, the oldest that there is room for."""

    ids: (
        Annotated[
            list[Annotated[str, msgspec.Meta(max_length=128)]],
            msgspec.Meta(min_length=1, max_length=1000),
        ]
        | None
    ) = None


class WebhookApi:
    """The handlers."""

    def __init__(self, router: Ref[WebhookMessage]) -> None:
        self._router = router

    async def endpoints(self, call: Call[Nothing, Nothing]) -> Endpoints:
        """GET /system/webhooks."""
        del call
        return await self._router.ask(ListEndpoints(), TIMEOUT)

    async def deliveries(self, call: Call[DeliveriesQuery, Nothing]) -> Deliveries:
        """GET /system/webhooks/<name>/deliveries."""
        query = call.query
        before = NEWEST
        if query.after:
            if not (query.after.isascii() and query.after.isdigit() and len(query.after) < 19):
                raise ApiError(422, "invalid", "after: expected the `next` of another page")
            before = int(query.after)
        message = ListDeliveries(call.params["name"], query.state, before, query.limit)
        return await self._router.ask(message, TIMEOUT)

    async def redrive(self, call: Call[Nothing, RedriveRequest]) -> Redriven:
        """POST /system/webhooks/<name>/redrive."""
        ids = None if call.body.ids is None else tuple(call.body.ids)
        return await self._router.ask(Redrive(call.params["name"], ids), TIMEOUT)

    async def enable(self, call: Call[Nothing, Nothing]) -> Enabled:
        """POST /system/webhooks/<name>/enable."""
        return await self._router.ask(Enable(call.params["name"], call.caller), TIMEOUT)

    async def ping(self, call: Call[Nothing, Nothing]) -> Pinged:
        """POST /system/webhooks/<name>/test."""
        return await self._router.ask(Ping(call.params["name"]), LONGEST_TIMEOUT + 5)

    def operations(self) -> list[Operation]:
        """The rows of the table."""
        return [
            Operation(
                id="listWebhooks",
                method="GET",
                path="/system/webhooks",
                surface=SYSTEM,
                scope="webhook:ro",
                summary="How each webhook is: what waits, what is dead, how far behind.",
                handler=self.endpoints,
                answer=Endpoints,
            ),
            Operation(
                id="webhookDeliveries",
                method="GET",
                path="/system/webhooks/{name}/deliveries",
                surface=SYSTEM,
                scope="webhook:ro",
                summary="What a webhook was sent, the newest first, a page at a time.",
                handler=self.deliveries,
                query=DeliveriesQuery,
                answer=Deliveries,
                errors=(404, 422),
            ),
            Operation(
                id="redriveWebhook",
                method="POST",
                path="/system/webhooks/{name}/redrive",
                surface=SYSTEM,
                scope="webhook:rw",
                summary="Send dead letters again: those with these ids, or the oldest.",
                handler=self.redrive,
                body=RedriveRequest,
                optional_body=True,
                answer=Redriven,
                errors=(404, 422, 503, 507),
            ),
            Operation(
                id="enableWebhook",
                method="POST",
                path="/system/webhooks/{name}/enable",
                surface=SYSTEM,
                scope="webhook:rw",
                summary="Go on with a webhook that was disabled.",
                handler=self.enable,
                answer=Enabled,
                errors=(404, 503, 507),
            ),
            Operation(
                id="testWebhook",
                method="POST",
                path="/system/webhooks/{name}/test",
                surface=SYSTEM,
                scope="webhook:rw",
                summary="Send a `webhook.test` now, and say what came back.",
                handler=self.ping,
                answer=Pinged,
                errors=(404, 503),
                timeout=LONGEST_TIMEOUT + 10,
            ),
        ]
