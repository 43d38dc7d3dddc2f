"""Whether an answer is what the OpenAPI document says of its operation."""

from __future__ import annotations

import re
from typing import Any

import httpx
import jsonschema

Document = dict[str, Any]

_documents: dict[str, Document] = {}


def operation_of(document: Document, method: str, path: str) -> Document | None:
    """The operation that a request goes to."""
    found: Document
    for template, methods in document["paths"].items():
        # These go on to the end of the path, with its slashes.
        pattern = re.sub(r"\{actor\}|(?<=/files/)\{name\}", ".+", template)
        pattern = re.sub(r"\{\w+\}", "[^/]+", pattern)
        if re.fullmatch(pattern, path) and method.lower() in methods:
            found = methods[method.lower()]
            return found
    return None


def check(document: Document, method: str, path: str, status: int, body: Any) -> None:
    """Fails when the operation's document does not have this status, or not with such a body."""
    operation = operation_of(document, method, path)
    if operation is None:
        return
    answers = operation["responses"]
    assert str(status) in answers, f"{method} {path} is not said to answer {status}: {body}"
    schema = answers[str(status)]["content"]["application/json"]["schema"]
    jsonschema.validate(body, {**schema, "components": document["components"]})


def check_type(document: Document, method: str, path: str, status: int, kind: str) -> None:
    """The same of an answer that is no JSON: its status and its type must be declared."""
    operation = operation_of(document, method, path)
    if operation is None:
        return
    answers = operation["responses"]
    assert str(status) in answers, f"{method} {path} is not said to answer {status}"
    declared = answers[str(status)]["content"]
    assert {kind.partition(";")[0], "*/*"} & set(declared), f"{method} {path}: {kind}"


def check_answer(document: Document, method: str, path: str, answer: httpx.Response) -> None:
    """Fails when an answer is not one of the operation's: JSON, another type, or nothing at all."""
    kind = answer.headers.get("content-type")
    if kind == "application/json":
        check(document, method, path, answer.status_code, answer.json())
    elif kind is not None:
        check_type(document, method, path, answer.status_code, kind)
    else:
        operation = operation_of(document, method, path)
        assert operation is not None
        assert "content" not in operation["responses"][str(answer.status_code)]
        assert answer.content == b""


async def look(answer: httpx.Response) -> None:
    """A hook for httpx: every answer that a test gets is compared with the document."""
    request = answer.request
    origin = str(request.url.copy_with(raw_path=b"/"))
    kind = answer.headers.get("content-type")
    if kind is None or request.method == "HEAD":
        return
    if kind == "application/json":
        await answer.aread()
    if origin not in _documents:
        async with httpx.AsyncClient(trust_env=False) as client:
            try:
                got = await client.get(f"{origin}openapi.json")
                _documents[origin] = got.json()
            except (httpx.TransportError, ValueError):
                return
    document = _documents[origin]
    if "paths" not in document:
        return
    if kind == "application/json":
        check(document, request.method, request.url.path, answer.status_code, answer.json())
    else:
        check_type(document, request.method, request.url.path, answer.status_code, kind)
