"""What can go wrong with a request, and how each surface says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from supervisor.errors import (
    ActorDown,
    AskExpired,
    MailboxFull,
    Rejected,
    StoreUnavailable,
    SwitchboardError,
)

# Domain codes that are not 400. What is not here is a refusal of the request: 422.
_STATUS = {
    "not_found": 404,
    "lease_lost": 409,
    "stopped": 403,
    "already_running": 409,
    "command_failed": 409,
    "chat_refused": 409,
    "unsupported": 409,
    "conflict": 409,
    "start_failed": 500,
    "control_lost": 502,
    "no_answer": 504,
    "busy": 503,
    "no_ports": 503,
    "too_many": 503,
    "insufficient_storage": 507,
}


class ApiError(SwitchboardError):
    """An answer other than 2xx: `code` for programs, `message` for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = dict(details or {})
        self.headers = dict(headers or {})


def from_exception(error: BaseException) -> ApiError | None:
    """The answer for an error of the runtime or the domain; None for a bug."""
    match error:
        case ApiError():
            return error
        case StoreUnavailable():
            return ApiError(507, error.code, error.message)
        case Rejected():
            status = _STATUS.get(error.code, 422)
            headers = {"Retry-After": "1"} if status == 503 else None
            return ApiError(status, error.code, error.message, error.details, headers)
        case MailboxFull():
            return ApiError(503, "overloaded", str(error), headers={"Retry-After": "1"})
        case ActorDown():
            return ApiError(503, "unavailable", str(error), headers={"Retry-After": "1"})
        case AskExpired():
            return ApiError(504, "timeout", str(error))
        case _:
            return None


Shape = Callable[[ApiError], Any]


def envelope(error: ApiError) -> Any:
    """contracts/gateway.md: `{"status":"error","error":{"code","message"},"data":null}`."""
    return {
        "status": "error",
        "error": {"code": error.code, "message": error.message},
        "data": None,
    }


def plain(error: ApiError) -> Any:
    """The appliance's own: `{"error":{"code","message","details"}}`."""
    return {"error": {"code": error.code, "message": error.message, "details": error.details}}


@dataclass(frozen=True, slots=True)
class Surface:
    """A prefix, a shape of errors, and the statuses it gives where the contract wants others."""

    name: str
    prefix: str
    shape: Shape
    schema: Mapping[str, Any]
    # By code: `invalid` is 400 where the contract knows no 422.
    statuses: Mapping[str, int] = field(default_factory=dict)
    # Fields of a request's body that its error repeats.
    echo: tuple[str, ...] = ()
    # Statuses whose body is empty.
    empty: tuple[int, ...] = ()

    def status(self, error: ApiError) -> int:
        """What an error is answered with here."""
        return self.statuses.get(error.code, error.status)

    def body(self, error: ApiError) -> bytes:
        """The error as JSON."""
        if error.status in self.empty:
            return b""
        return msgspec.json.encode(self.shape(error))


_CODE = {"code": {"type": "string"}, "message": {"type": "string"}}

GATEWAY = Surface(
    "gateway",
    "/gateway",
    envelope,
    {
        "type": "object",
        "required": ["status", "error", "data"],
        "properties": {
            "status": {"const": "error"},
            "error": {"type": "object", "required": ["code", "message"], "properties": _CODE},
            "data": {"type": "null"},
        },
    },
)
SYSTEM = Surface(
    "system",
    "/system",
    plain,
    {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message", "details"],
                "properties": {**_CODE, "details": {"type": "object"}},
            }
        },
    },
)
EVENTS = Surface("events", "/events", plain, SYSTEM.schema)


def named(error: ApiError) -> Any:
    """contracts/egress.md: `{"error","request_id"}`."""
    return {"error": error.message, "request_id": str(error.details.get("request_id", ""))}


EGRESS = Surface(
    "egress",
    "/egress",
    named,
    {
        "type": "object",
        "required": ["error", "request_id"],
        "properties": {"error": {"type": "string"}, "request_id": {"type": "string"}},
    },
    statuses={"invalid": 400, "not_configured": 400},
    echo=("request_id",),
)

# What to do about an error that does not say it itself, by status.
_ACTIONS = {
    400: "correct the request",
    403: "give the token the scope",
    404: "check the address",
    405: "check the method",
    409: "look at the present state and decide",
    413: "send less at once",
    422: "correct the request",
    429: "wait for as long as Retry-After says",
    503: "try again after a moment",
    504: "try again after a moment",
    507: "make room on the disk of the appliance",
}
_RETRYABLE = {408, 429, 500, 502, 503, 504, 507}


def actionable(error: ApiError) -> Any:
    """contracts/runtime-config-and-calls.md and DECISIONS.md."""
    details = dict(error.details)
    status = RUNTIME.status(error)
    action = details.pop("action", None) or _ACTIONS.get(status, "look at the log")
    return {
        "error": {
            "code": error.code,
            "message": error.message,
            "action": action,
            "retryable": status in _RETRYABLE,
            "details": details or None,
        }
    }


RUNTIME = Surface(
    "runtime",
    "/internal",
    actionable,
    {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message", "action", "retryable", "details"],
                "properties": {
                    **_CODE,
                    "action": {"type": "string"},
                    "retryable": {"type": "boolean"},
                    "details": {"type": ["object", "null"]},
                },
            }
        },
    },
    statuses={
        "phone_number_not_found": 404,
        "agent_not_assigned": 409,
        "agent_not_published": 409,
        "prompt_failed": 500,
    },
    empty=(401,),
)

SURFACES = (GATEWAY, EGRESS, RUNTIME, EVENTS, SYSTEM)


def surface_of(path: str) -> Surface:
    """The surface a path belongs to, also when it is no route: it decides how an error looks."""
    for surface in SURFACES:
        if path == surface.prefix or path.startswith(surface.prefix + "/"):
            return surface
    return SYSTEM
