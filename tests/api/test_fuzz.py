"""Rubbish at every operation, made from the OpenAPI document: never a crash, never a hang.

Every answer must be one that the document tells of, and the appliance must be as healthy after it
as before. There is no profile, channel or page that could be started, so that a request that
happens to be good starts nothing.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis_jsonschema import from_schema

from tests.api.declared import check_answer, operation_of
from tests.appliance import Appliance

Document = dict[str, Any]
OPERATIONS = [
    ("POST", "/gateway/start"),
    ("POST", "/gateway/stop"),
    ("GET", "/gateway/status"),
    ("POST", "/gateway/command"),
    ("GET", "/gateway/list"),
    ("GET", "/healthz"),
    ("GET", "/health"),
    ("GET", "/readyz"),
    ("GET", "/version"),
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
    ("POST", "/egress/v1/{app_id}/tasks"),
    ("GET", "/egress/v1/{app_id}/tasks"),
    ("GET", "/egress/v1/{app_id}/tasks/{task_id}"),
    ("DELETE", "/egress/v1/{app_id}/tasks/{task_id}"),
    ("POST", "/egress/v1/{app_id}/tasks/{task_id}/stop"),
    ("POST", "/egress/v1/{app_id}/tasks/{task_id}/status"),
    ("POST", "/egress/v1/{app_id}/tasks/{task_id}/spotlight"),
    ("POST", "/egress/v1/{app_id}/tasks/{task_id}/upload"),
    ("GET", "/egress/v1/{app_id}/tasks/{task_id}/files/{name}"),
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
    ("POST", "/internal/v1/erasures"),
    ("GET", "/internal/v1/erasures"),
    ("GET", "/egress/v1/capacity"),
]
PROFILES = dict.fromkeys(["baresip", "recording", "streaming", "script"])
LIGHT = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One that can start nothing."""
    config = {
        "gateways": {"profiles": PROFILES},
        "egress": {"channels": {"egress_test": None}, "page_hosts": []},
        "limits": {"body": 65536, "read_timeout": 2, "json_depth": 32},
        "log": {"level": "warning"},
    }
    appliance = Appliance(tmp_path_factory.mktemp("target"), config)
    try:
        trio.run(appliance.start)
        yield appliance
        assert trio.run(appliance.stop) == 0
        log = appliance.log.read_text()
        assert "request_failed" not in log
        assert "Traceback" not in log
    finally:
        trio.run(appliance.end)


@pytest.fixture(scope="module")
def client(target: Appliance) -> Iterator[httpx.Client]:
    """With the admin token; a request that takes five seconds hangs."""
    headers = {"Authorization": f"Bearer {target.token}"}
    with httpx.Client(base_url=target.url, headers=headers, timeout=5.0, trust_env=False) as found:
        yield found


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> Document:
    """What the answers are compared with."""
    found: Document = client.get("/openapi.json").json()
    return found


def healthy(client: httpx.Client) -> None:
    """Nothing restarted, nothing stuck, everybody there."""
    assert client.get("/healthz").json()["problems"] == []
    assert client.get("/readyz").json()["ready"] is True
    tree = client.get("/system/tree").json()
    todo = [tree["tree"]]
    while todo:
        node = todo.pop()
        assert node["state"] == "running", node
        assert "last_error" not in node, node
        todo += node.get("children", [])
    assert tree["counts"]["gateways_live"] == 0


# -- rubbish ------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
malformed = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [
            b"",
            b"{",
            b"[" * 30_000,
            b'{"a":' * 5_000,
            b'{"a":"' + b"x" * 60_000 + b'"}',
            b'{"gw_id":"a","gw_id":"b"}',
            b'{"a":1e999999}',
            b'{"a":"\\ud800"}',
            b'{"a":"\xed\xa0\x80"}',
            b"\xef\xbb\xbf{}",
            b"{}{}",
            b"NaN",
            b"x" * 70_000,
            b'{"name":"\x00"}',
        ]
    ),
)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
header_values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=220).map(
    str.strip
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "Idempotency-Key": header_values,
        "X-Request-ID": header_values,
        "Content-Type": header_values,
        "X-API-Key": header_values,
        "Authorization": st.one_of(
            header_values, header_values.map(lambda v: f"Bearer {v}".strip())
        ),
        "Last-Event-ID": header_values,
        "Accept-Encoding": header_values,
    },
)
queries = st.one_of(
    st.just(""),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=80),
    st.dictionaries(
        st.sampled_from(["gw_id", "limit", "after", "state", "before", "channel", "x", ""]),
        names,
        max_size=5,
    ).map(lambda pairs: str(httpx.QueryParams(pairs))),
)


def resolved(document: Document, schema: Any) -> Any:
    """References replaced by what they name."""
    if isinstance(schema, list):
        return [resolved(document, part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return resolved(document, document["components"]["schemas"][name])
    return {key: resolved(document, value) for key, value in schema.items()}


def fitting(document: Document, schema: Document) -> st.SearchStrategy[Any]:
    """Objects that fit the schema of an operation's body."""
    return _fits(resolved(document, schema))


def _fits(schema: Document) -> st.SearchStrategy[Any]:
    """Of a schema without references. What is made of parts is made here, part by part."""
    if "anyOf" in schema:
        return st.one_of(*(_fits(part) for part in schema["anyOf"]))
    if schema.get("type") == "object" and "properties" in schema:
        fields = {key: _fits(part) for key, part in schema["properties"].items()}
        required = schema.get("required", [])
        return st.fixed_dictionaries(
            {key: fields[key] for key in required},
            optional={key: value for key, value in fields.items() if key not in required},
        )
    if schema.get("type") == "object":
        return st.dictionaries(st.text(max_size=12), anything, max_size=4)
    if schema.get("type") == "array" and "items" in schema:
        return st.lists(_fits(schema["items"]), max_size=min(schema.get("maxItems", 4), 4))
    return from_schema(schema) if {"type", "enum"} & set(schema) else anything


def bodies(document: Document, operation: Document) -> st.SearchStrategy[bytes]:
    """What fits the schema, what nearly does, and what does not at all."""
    content = operation.get("requestBody")
    if content is None:
        return malformed
    fits = fitting(document, content["content"]["application/json"]["schema"])
    keys = st.sampled_from(
        [
            "gw_id",
            "room",
            "main_app",
            "name",
            "scopes",
            "force",
            "dry",
            "request_id",
            "payload",
            "é",
            "",
        ]
    )
    wrong = st.dictionaries(keys, anything, min_size=1, max_size=3)

    def encoded(body: Any) -> bytes:
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")

    return st.one_of(
        fits.map(encoded),
        st.builds(lambda body, more: encoded({**body, **more}), fits, wrong),
        anything.map(encoded),
        malformed,
    )


# -- every operation ------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda part: part)
def test_an_operation_takes_any_rubbish(
    client: httpx.Client, document: Document, method: str, path: str
) -> None:
    operation = document["paths"][path][method.lower()]

    # What an egress operation has beyond its path is looked at by the start of a task.
    lighter = path.startswith("/egress/") and path.count("/") > 4

    @settings(LIGHT, max_examples=15 if lighter else 40)
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        url = path
        for part in ("{actor}", "{name}", "{app_id}", "{task_id}", "{phone_number}", "{call_id}"):
            if part in url:
                text = data.draw(names | st.just("app1") if part == "{app_id}" else names)
                url = url.replace(part, "".join(f"%{b:02X}" for b in text.encode()))
        query = data.draw(queries)
        content = data.draw(bodies(document, operation)) if method != "GET" else None
        more = data.draw(headers) if data.draw(st.booleans()) else {}
        answer = client.request(
            method, f"{url}?{query}" if query else url, content=content, headers=more
        )
        assert answer.status_code < 500 or answer.status_code in (503, 504, 507), answer.text
        assert 0 < len(answer.headers.get("x-request-id", "refused early")) <= 64
        asked = answer.request.url.path
        if operation_of(document, method, asked) is operation:
            check_answer(document, method, asked, answer)

    fuzz()
    healthy(client)


def test_any_path_and_method_is_answered(client: httpx.Client) -> None:
    methods = st.sampled_from(
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"]
    )
    paths = st.one_of(
        names.map(lambda text: "/" + "".join(f"%{b:02X}" for b in text.encode())),
        st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60).map(
            lambda text: "/" + text.replace("#", "").replace("?", "")
        ),
        st.sampled_from(
            [
                "/gateway",
                "/gateway/",
                "//",
                "/ws",
                "/events/",
                "/docs/",
                "/system",
                "/..",
                "/gateway/../system/tree",
                "/%2e%2e/etc/passwd",
                "/%00",
                "/%ff",
                "/a" * 500,
            ]
        ),
    )

    @LIGHT
    @given(methods, paths, queries)
    def fuzz(method: str, path: str, query: str) -> None:
        answer = client.request(method, httpx.URL(str(client.base_url).rstrip("/") + path))
        assert answer.status_code < 500, (method, path, query)
        if answer.status_code >= 400 and method != "HEAD":
            error = answer.json()["error"]
            assert error if isinstance(error, str) else error["code"], path

    fuzz()
    healthy(client)


def test_any_bytes_are_answered_or_closed(target: Appliance, client: httpx.Client) -> None:
    heads = st.one_of(
        st.binary(min_size=1, max_size=300),
        st.builds(
            lambda line, rest: line + b"\r\n" + rest + b"\r\n\r\n",
            st.sampled_from(
                [
                    b"GET / HTTP/1.1",
                    b"POST /gateway/start HTTP/1.1",
                    b"GET /health HTTP/1.0",
                    b"PRI * HTTP/2.0",
                    b"GET http://x/health HTTP/1.1",
                    b"OPTIONS * HTTP/1.1",
                ]
            ),
            st.one_of(
                st.binary(max_size=120),
                st.sampled_from(
                    [
                        b"Host: x\r\nTransfer-Encoding: chunked, identity",
                        b"Host: x\r\nContent-Length: 99999999999999999999",
                        b"Host: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
                        (
                            b"Host: x\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                            b"HTTP2-Settings: AAMAAABkAAQAAP__"
                        ),
                        b"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade",
                        b"Host: x\r\nExpect: 100-continue\r\nContent-Length: 5",
                    ]
                ),
            ),
        ),
    )

    @LIGHT
    @given(heads)
    def fuzz(said: bytes) -> None:
        with socket.create_connection(("127.0.0.1", target.port), timeout=5.0) as connection:
            try:
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    continue
            except ConnectionError:
                return

    fuzz()
    healthy(client)


def test_any_frames_over_a_websocket_are_answered(target: Appliance, client: httpx.Client) -> None:
    """However wrong the frames are, a good one after them is answered."""
    commands = st.fixed_dictionaries(
        {"id": st.integers(0, 9) | names, "method": st.sampled_from(["GET", "POST", "get", "💥"])},
        optional={
            "path": names | st.sampled_from([path for _, path in OPERATIONS]) | anything,
            "body": anything,
            "idempotency_key": names | st.none(),
        },
    )
    frames = st.one_of(
        commands.map(lambda command: json.dumps(command)),
        anything.map(lambda value: json.dumps(value)),
        st.text(st.characters(codec="utf-8"), max_size=100),
        st.binary(max_size=100),
    )

    @LIGHT
    @given(st.lists(frames, max_size=12))
    def fuzz(said: list[str | bytes]) -> None:
        async def speak() -> None:
            with trio.fail_after(10):
                async with target.ws("topics=none") as connection:
                    for frame in said:
                        await connection.send_message(frame)
                    last = json.dumps({"id": "the last", "method": "GET", "path": "/health"})
                    await connection.send_message(last)
                    answered = 0
                    while answered < len(said) + 1:
                        found = json.loads(await connection.get_message())
                        if "status" in found and "type" not in found:
                            answered += 1
                            assert set(found) == {"id", "status", "body"}
                            assert found["status"] < 500 or found["status"] in (503, 504, 507)

        trio.run(speak)

    fuzz()
    healthy(client)


def test_any_query_of_a_stream_is_answered(client: httpx.Client) -> None:
    values = st.text(max_size=30) | st.sampled_from(["0", "a:1", "1", "*", "gateway,", "true"])

    @LIGHT
    @given(
        st.dictionaries(st.sampled_from(["since", "topics", "batch", "api_key"]), values), headers
    )
    def fuzz(query: dict[str, str], more: dict[str, str]) -> None:
        with client.stream("GET", "/events", params=query, headers=more) as answer:
            assert answer.status_code in (200, 400, 401)
            if answer.status_code == 200:
                assert answer.headers["content-type"] == "text/event-stream"

    fuzz()
    healthy(client)
