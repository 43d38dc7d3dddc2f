"""The OpenAPI document, made from the table of operations."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from api.errors import Surface
from api.operation import Nothing, Operation, Table
from config import VERSION

_REASONS = {
    200: "OK",
    206: "A range of it",
    304: "It is what the client has",
    400: "The request cannot be read",
    401: "No token, or an unknown one",
    403: "Not allowed",
    404: "Not there",
    405: "Not for this path",
    408: "The body did not come in time",
    409: "Not in this state",
    413: "The body is too large",
    416: "The file has no such range",
    422: "The request does not fit the schema",
    429: "Too many requests; see Retry-After",
    431: "The headers are too large",
    500: "It could not be done; the message says why",
    502: "What was asked broke off",
    503: "Not now; see Retry-After",
    504: "No answer in time",
    507: "The disk refuses writes",
}


def document(table: Table) -> dict[str, Any]:
    """The whole document, OpenAPI 3.1."""
    kinds: list[Any] = [o.answer for o in table.operations]
    kinds += [o.body_schema or o.body for o in table.operations if o.body is not Nothing]
    kinds += [o.query for o in table.operations if o.query is not Nothing]
    schemas, components = msgspec.json.schema_components(
        kinds, ref_template="#/components/schemas/{name}"
    )
    by_kind = {id(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths: dict[str, Any] = {}
    for operation in table.operations:
        path = re.sub(r"\{(\w+)(:path)?\}", r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(
            operation, by_kind, components
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Switchboard",
            "version": VERSION,
            "description": "Every operation also goes over `/ws`: send "
            '`{"id","method","path","body"}`, get `{"id","status","body"}`. Events are at `/ws` '
            "and `/events`.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(
    operation: Operation, by_kind: dict[int, Any], components: dict[str, Any]
) -> dict[str, Any]:
    schema = by_kind[id(operation.answer)]
    kinds = operation.files or (operation.content_type, *operation.other_types)
    content = {kind: {"schema": schema} for kind in kinds}
    answers: dict[str, Any] = {"200": {"description": "OK", "content": content}}
    if operation.files:
        answers["206"] = {"description": _REASONS[206], "content": content}
    found: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.surface.name],
        "parameters": _parameters(operation, by_kind, components),
        "responses": {**answers, **_errors(operation)},
    }
    if operation.body is not Nothing:
        kind = operation.body_schema or operation.body
        found["requestBody"] = {
            "required": not operation.optional_body,
            "content": _json(by_kind[id(kind)]),
        }
    if operation.scope is not None:
        found["security"] = [{"bearer": []}, {"key": []}]
        found["x-scope"] = operation.scope
    return found


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _parameters(
    operation: Operation, by_kind: dict[int, Any], components: dict[str, Any]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)(?::path)?\}", operation.path)
    ]
    if operation.query is not Nothing:
        name = by_kind[id(operation.query)]["$ref"].rpartition("/")[2]
        schema = components[name]
        required = schema.get("required", [])
        found += [
            {"name": key, "in": "query", "required": key in required, "schema": value}
            for key, value in schema["properties"].items()
        ]
    if operation.files:
        schema = {"type": "string"}
        found.append({"name": "Range", "in": "header", "required": False, "schema": schema})
    if operation.creates:
        key = {"type": "string", "minLength": 1, "maxLength": 200}
        found.append({"name": "Idempotency-Key", "in": "header", "required": False, "schema": key})
    return found


def _errors(operation: Operation) -> dict[str, Any]:
    statuses = {429, 431, *operation.errors}
    if operation.scope is not None:
        # Whoever is asked may be busy, or between two lives; the disk may not even be read.
        statuses |= {401, 403, 503, 504, 507}
    if operation.query is not Nothing:
        statuses.add(operation.query_status)
    if operation.method != "GET":
        statuses |= {400, 408, 413, 503, 504, 507}
        if operation.body is not Nothing:
            statuses.add(operation.body_status)
    if operation.creates:
        statuses |= {400, 409}
    return {str(status): _error(operation.surface, status) for status in sorted(statuses)}


def _error(surface: Surface, status: int) -> dict[str, Any]:
    if status == 304 or status in surface.empty:
        return {"description": _REASONS[status]}
    return {"description": _REASONS[status], "content": _json(dict(surface.schema))}
