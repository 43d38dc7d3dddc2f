"""An operation, declared once: HTTP routes, commands over /ws, checks and documents come of it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from api.auth import Identity
from api.errors import Surface

Q = TypeVar("Q")
B = TypeVar("B")


class Nothing(msgspec.Struct, frozen=True):
    """No parameters, or no body."""


@dataclass(slots=True)
class Call(Generic[Q, B]):
    """One request as its handler sees it: checked and decoded.

    `caller` is the token's name; `key` the idempotency key; `params` the parts of the path.
    """

    query: Q
    body: B
    params: dict[str, str]
    caller: str
    request_id: str
    identity: Identity
    key: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is not simply 200 with JSON."""

    body: Any
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """An answer that is a file: sent piece by piece, and in part where a range is asked for."""

    path: Path
    content_type: str


Handler = Callable[[Call[Any, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table.

    `scope` is `kind:ro` or `kind:rw`; None needs no token. `creates`: takes an Idempotency-Key.
    `query_status` and `body_status` are what a malformed query or body is answered with.
    `timeout` in seconds; None takes the configured one.
    """

    id: str
    method: str
    path: str
    surface: Surface
    scope: str | None
    summary: str
    handler: Handler
    answer: Any
    query: type = Nothing
    body: Any = Nothing
    # What the documents show where the handler itself looks closer at the body.
    body_schema: Any = None
    # No body at all is as good as an empty object.
    optional_body: bool = False
    creates: bool = False
    query_status: int = 422
    body_status: int = 422
    errors: tuple[int, ...] = ()
    timeout: float | None = None
    # What the answer is written as; a stream is served by streams.py, not by its handler.
    content_type: str = "application/json"
    # What else it may be written as, where the request asks for that.
    other_types: tuple[str, ...] = ()
    stream: bool = False
    # Answers with files (FileAnswer) of these types: over HTTP only, in ranges where asked.
    files: tuple[str, ...] = ()
    # The largest body, in bytes; None is what is configured for all.
    body_limit: Callable[[], int] | None = None
    # The handler itself looks at the depth of the parts of the body that have no schema.
    own_depth: bool = False


_PART = re.compile(r"\{(\w+)(:path)?\}")


class Table:
    """All operations, found by method and path."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.operations = tuple(operations)
        self._exact: dict[str, dict[str, Operation]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Operation]]] = []
        by_pattern: dict[str, dict[str, Operation]] = {}
        for operation in self.operations:
            if "{" in operation.path:
                by_pattern.setdefault(operation.path, {})[operation.method] = operation
            else:
                self._exact.setdefault(operation.path, {})[operation.method] = operation
        for path, methods in by_pattern.items():
            pattern = _PART.sub(lambda m: f"(?P<{m[1]}>{'.+' if m[2] else '[^/]+'})", path)
            self._patterns.append((re.compile(f"^{pattern}$"), methods))

    def find(self, method: str, path: str) -> tuple[Operation | None, dict[str, str], set[str]]:
        """(operation, parts of the path, methods the path has); no methods: no such path."""
        methods = self._exact.get(path)
        if methods is not None:
            return methods.get(method), {}, set(methods)
        for pattern, methods in self._patterns:
            match = pattern.match(path)
            if match is not None:
                return methods.get(method), match.groupdict(), set(methods)
        return None, {}, set()
