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
        pattern = re.sub(r"\{actor\}", ".+", template)
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


async def look(answer: httpx.Response) -> None:
    """A hook for httpx: every answer that a test gets is compared with the document."""
    request = answer.request
    origin = str(request.url.copy_with(raw_path=b"/"))
    if answer.headers.get("content-type") != "application/json" or request.method == "HEAD":
        return
    await answer.aread()
    if origin not in _documents:
        async with httpx.AsyncClient(trust_env=False) as client:
            try:
                got = await client.get(f"{origin}openapi.json")
                _documents[origin] = got.json()
            except (httpx.TransportError, ValueError):
                return
    document = _documents[origin]
    if "paths" in document:
        check(document, request.method, request.url.path, answer.status_code, answer.json())
