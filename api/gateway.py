"""contracts/gateway.md as operations: parse, ask an actor, shape the answer."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Annotated, Any, Literal

import msgspec

from actors.gateway.messages import (
    Acknowledged,
    CommandGateway,
    GatewayView,
    GetGateway,
    ListGateways,
    Page,
    RouterMessage,
    Started,
    StartGateway,
    StopGateway,
    Stopped,
)
from actors.gateway.router import Directory
from api.errors import GATEWAY, ApiError
from api.operation import Call, Nothing, Operation
from supervisor.errors import ActorDown
from supervisor.ref import Ref

# A start waits for the profile's readiness; a stop for STOP_ANSWER at most.
START_TIMEOUT = 55.0
STOP_TIMEOUT = 30.0
COMMAND_TIMEOUT = 30.0
# A start's fields go into a process's environment, which has limits of its own.
MAX_REQUEST = 64 * 1024

GatewayId = Annotated[
    str,
    msgspec.Meta(
        # What follows the `$` keeps a line end at the end out.
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)",
        description="names the gateway: letters, digits, `_`, `.` and `-`",
    ),
]
Text = Annotated[str, msgspec.Meta(max_length=2048)]
Flag = bool | Literal["true", "false"]


class StartRequest(msgspec.Struct, kw_only=True):
    """Body of a start. Fields that are not listed are handed to the profile."""

    gw_id: GatewayId
    room: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    main_app: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    type: Text | None = None
    webrtc_domain: Any = None
    from_id: Text | None = None
    prefix: Text | None = None
    rtmp_dst: Text | None = None
    dial: Text | None = None
    loop: Flag | None = None
    transcript: Flag | None = None
    audio_only: Flag | None = None
    api_key: Text | None = None
    recipient_mail: Text | None = None


class StopRequest(msgspec.Struct):
    """Body of a stop."""

    gw_id: GatewayId
    force: Flag | None = None


class OfGateway(msgspec.Struct):
    """Query that names a gateway."""

    gw_id: str


class ListQuery(msgspec.Struct):
    """Query of a list: `after` is the `next` of the page before."""

    after: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100
    state: Literal["up", "down", "starting", "backoff", "restarting", "stopping"] | None = None


class StartedAnswer(msgspec.Struct, kw_only=True):
    """`data` of a start: the processing state (`working`) and the id."""

    status: Literal["success"] = "success"
    data: Started


class StoppedAnswer(msgspec.Struct, kw_only=True):
    """`data` of a stop."""

    status: Literal["success"] = "success"
    data: Stopped


class StatusAnswer(msgspec.Struct, kw_only=True):
    """`data` of a status."""

    status: Literal["success"] = "success"
    data: GatewayView


class CommandAnswer(msgspec.Struct, kw_only=True):
    """`data` of a command: what the gateway answered."""

    status: Literal["success"] = "success"
    data: Acknowledged


class ListAnswer(msgspec.Struct, kw_only=True):
    """`data` of a list."""

    status: Literal["success"] = "success"
    data: Page


_FLAGS = ("loop", "transcript", "audio_only")


def _flag(value: Flag | None) -> bool:
    return value is True or value == "true"


class GatewayApi:
    """The handlers. `directory` finds a live gateway without asking the router."""

    def __init__(self, router: Ref[RouterMessage], directory: Directory) -> None:
        self._router = router
        self._directory = directory

    async def start(self, call: Call[Nothing, dict[str, Any]]) -> StartedAnswer:
        """POST /gateway/start."""
        try:
            known = msgspec.convert(call.body, StartRequest)
        except msgspec.ValidationError as error:
            raise ApiError(422, "invalid", str(error)) from error
        request = {k: v for k, v in call.body.items() if v is not None}
        for name in _FLAGS:
            if name in request:
                request[name] = _flag(request[name])
        for name in request:
            if not name.isidentifier() or len(name) > 64:
                raise ApiError(422, "invalid", f"{name[:80]!r} is no name for a field")
        if len(msgspec.json.encode(request)) > MAX_REQUEST:
            raise ApiError(422, "invalid", f"a start has at most {MAX_REQUEST} bytes")
        # A key is its caller's, and stands for one body: another's may be the same.
        body = hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()
        key = None if call.key is None else f"{call.caller}/{call.key}/{body}"
        message = StartGateway(known.gw_id, known.room, known.main_app, request, key)
        return StartedAnswer(data=await self._router.ask(message, START_TIMEOUT))

    async def stop(self, call: Call[Nothing, StopRequest]) -> StoppedAnswer:
        """POST /gateway/stop."""
        message = StopGateway(call.body.gw_id, _flag(call.body.force))
        return StoppedAnswer(data=await self._router.ask(message, STOP_TIMEOUT))

    async def status(self, call: Call[OfGateway, Nothing]) -> StatusAnswer:
        """GET /gateway/status."""
        gw_id = call.query.gw_id
        ref = self._directory.find(gw_id)
        if ref is not None:
            # Put away just now? Then the router knows the row.
            with suppress(ActorDown):
                return StatusAnswer(data=await ref.ask(GetGateway(gw_id)))
        return StatusAnswer(data=await self._router.ask(GetGateway(gw_id)))

    async def command(self, call: Call[OfGateway, dict[str, Any]]) -> CommandAnswer:
        """POST /gateway/command."""
        message = CommandGateway(call.query.gw_id, call.body)
        return CommandAnswer(data=await self._router.ask(message, COMMAND_TIMEOUT))

    async def list_gateways(self, call: Call[ListQuery, Nothing]) -> ListAnswer:
        """GET /gateway/list."""
        query = call.query
        message = ListGateways(query.after, query.limit, query.state)
        return ListAnswer(data=await self._router.ask(message, STOP_TIMEOUT))

    def operations(self) -> list[Operation]:
        """The rows of the table."""
        return [
            Operation(
                id="startGateway",
                method="POST",
                path="/gateway/start",
                surface=GATEWAY,
                scope="gateway:rw",
                summary="Start a gateway; answers once it is ready, or says why not.",
                handler=self.start,
                body=dict[str, Any],
                body_schema=StartRequest,
                answer=StartedAnswer,
                creates=True,
                errors=(409, 500, 503, 507),
                timeout=START_TIMEOUT + 5,
            ),
            Operation(
                id="stopGateway",
                method="POST",
                path="/gateway/stop",
                surface=GATEWAY,
                scope="gateway:rw",
                summary="Stop a gateway; with `force`, kill it at once.",
                handler=self.stop,
                body=StopRequest,
                answer=StoppedAnswer,
                errors=(404, 500, 507),
            ),
            Operation(
                id="gatewayStatus",
                method="GET",
                path="/gateway/status",
                surface=GATEWAY,
                scope="gateway:ro",
                summary="How a gateway is: up or down, its recording, its calls.",
                handler=self.status,
                query=OfGateway,
                query_status=400,
                answer=StatusAnswer,
                errors=(404,),
            ),
            Operation(
                id="gatewayCommand",
                method="POST",
                path="/gateway/command",
                surface=GATEWAY,
                scope="gateway:rw",
                summary="Hand a command to a gateway and return its answer.",
                handler=self.command,
                query=OfGateway,
                query_status=400,
                body=dict[str, Any],
                answer=CommandAnswer,
                errors=(403, 404, 409, 502, 504),
            ),
            Operation(
                id="listGateways",
                method="GET",
                path="/gateway/list",
                surface=GATEWAY,
                scope="gateway:ro",
                summary="Gateways in the order of their ids, a page at a time.",
                handler=self.list_gateways,
                query=ListQuery,
                answer=ListAnswer,
            ),
        ]
