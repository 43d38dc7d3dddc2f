"""The documents say what is so, and need nothing from outside."""

from __future__ import annotations

import html.parser
import re
from typing import Any

import jsonschema
import pytest

from tests.appliance import Appliance

Document = dict[str, Any]


@pytest.fixture
async def document(shared: Appliance) -> Document:
    """As the appliance gives it."""
    async with shared.client(token=None) as client:
        found: Document = (await client.get("/openapi.json")).json()
    return found


EXPECTED = {
    ("GET", "/healthz"),
    ("GET", "/health"),
    ("GET", "/readyz"),
    ("GET", "/version"),
    ("GET", "/openapi.json"),
    ("GET", "/system/tree"),
    ("POST", "/system/reload"),
    ("POST", "/system/actors/{actor}/restart"),
    ("GET", "/system/tokens"),
    ("POST", "/system/tokens"),
    ("DELETE", "/system/tokens/{name}"),
    ("POST", "/system/backup"),
    ("GET", "/system/webhooks"),
    ("GET", "/system/webhooks/{name}/deliveries"),
    ("POST", "/system/webhooks/{name}/redrive"),
    ("POST", "/system/webhooks/{name}/enable"),
    ("POST", "/system/webhooks/{name}/test"),
    ("POST", "/gateway/start"),
    ("POST", "/gateway/stop"),
    ("GET", "/gateway/status"),
    ("POST", "/gateway/command"),
    ("GET", "/gateway/list"),
    ("GET", "/events"),
    ("POST", "/egress/v1/{app_id}/tasks"),
    ("GET", "/egress/v1/{app_id}/tasks"),
    ("GET", "/egress/v1/{app_id}/tasks/{task_id}"),
    ("DELETE", "/egress/v1/{app_id}/tasks/{task_id}"),
    ("POST", "/egress/v1/{app_id}/tasks/{task_id}/stop"),
    ("POST", "/egress/v1/{app_id}/tasks/{task_id}/status"),
    ("POST", "/egress/v1/{app_id}/tasks/{task_id}/spotlight"),
    ("POST", "/egress/v1/{app_id}/tasks/{task_id}/upload"),
    ("GET", "/egress/v1/{app_id}/tasks/{task_id}/files/{name}"),
    ("GET", "/egress/v1/capacity"),
    ("GET", "/internal/v1/runtime/phone_numbers/{phone_number}"),
    ("POST", "/internal/v1/runtime/rejections"),
    ("GET", "/internal/v1/runtime/rejections"),
    ("POST", "/internal/v1/calls/start"),
    ("GET", "/internal/v1/calls"),
    ("GET", "/internal/v1/calls/{call_id}"),
    ("POST", "/internal/v1/calls/{call_id}/events"),
    ("GET", "/internal/v1/calls/{call_id}/events"),
    ("POST", "/internal/v1/calls/{call_id}/end"),
    ("POST", "/internal/v1/calls/{call_id}/artifacts"),
    ("POST", "/internal/v1/calls/{call_id}/timeline"),
    ("GET", "/internal/v1/calls/{call_id}/timeline"),
    ("GET", "/internal/v1/calls/{call_id}/transcript"),
    ("GET", "/internal/v1/calls/{call_id}/stream"),
    ("POST", "/internal/v1/erasures"),
    ("GET", "/internal/v1/erasures"),
}


def operations(document: Document) -> list[tuple[str, str, Document]]:
    """(method, path, operation) of each."""
    return [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


async def test_every_operation_is_in_it(document: Document) -> None:
    assert {(method, path) for method, path, _ in operations(document)} == EXPECTED
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))


async def test_each_operation_is_told_whole(document: Document) -> None:
    for method, path, operation in operations(document):
        assert operation["summary"], path
        named = set(re.findall(r"\{(\w+)\}", path))
        assert {p["name"] for p in operation["parameters"] if p["in"] == "path"} == named
        assert "429" in operation["responses"], path
        if operation.get("x-scope"):
            assert {"401", "403"} <= set(operation["responses"]), path
            assert operation["security"], path
        if method == "POST" and "requestBody" in operation:
            assert {"400", "408", "413"} <= set(operation["responses"]), path


async def test_every_schema_is_a_schema_and_every_reference_leads_somewhere(
    document: Document,
) -> None:
    for name, schema in document["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema), name
    known = document["components"]["schemas"]
    for reference in re.findall(r"#/components/schemas/([^'\"]+)", repr(document)):
        assert reference in known


async def test_every_operation_answers_its_documented_error_without_a_token(
    shared: Appliance, document: Document
) -> None:
    async with shared.client(token=None) as client:
        for method, path, operation in operations(document):
            if not operation.get("x-scope"):
                continue
            url = re.sub(r"\{\w+\}", "x", path)
            answer = await client.request(method, url)
            assert answer.status_code == 401, path
            documented = operation["responses"]["401"]
            if "content" in documented:
                schema = documented["content"]["application/json"]["schema"]
                jsonschema.validate(answer.json(), schema)
            else:
                assert answer.content == b""


async def test_a_path_answers_405_to_other_methods(shared: Appliance, document: Document) -> None:
    async with shared.client() as client:
        for path, methods in document["paths"].items():
            url = re.sub(r"\{\w+\}", "x", path)
            answer = await client.request("PATCH", url)
            assert answer.status_code == 405, path
            allowed = {method.strip() for method in answer.headers["allow"].split(",")}
            assert allowed == {method.upper() for method in methods}


class Page(html.parser.HTMLParser):
    """What a page refers to, and the ids in it."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.ids: set[str] = set()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            if name == "id" and value:
                self.ids.add(value)
            if name in ("src", "href") and value and not value.startswith(("/", "#")):
                self.outside.append(value)


async def test_the_page_shows_every_operation_and_needs_nothing_from_outside(
    shared: Appliance, document: Document
) -> None:
    async with shared.client(token=None) as client:
        answer = await client.get("/docs")
        assert (await client.get("/")).headers["location"] == "/docs"
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    page = Page()
    page.feed(answer.text)
    assert page.outside == []
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert "@import" not in answer.text
    assert "url(" not in answer.text
    ids = {operation["operationId"] for _, _, operation in operations(document)}
    assert ids <= page.ids
    assert "/ws" in answer.text


async def test_head_is_get_without_a_body(shared: Appliance) -> None:
    async with shared.client() as client:
        for path in ("/healthz", "/gateway/list", "/nothing"):
            there, here = await client.get(path), await client.head(path)
            assert here.status_code == there.status_code
            assert here.content == b""
