"""What one client may take: sizes, times, connections, rates. And that nothing of it stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from api.rate import MAX_ADDRESSES, Rates
from tests.api.kit import CONFIG, is_envelope, is_plain, name
from tests.api.raw import Raw, raw, request
from tests.appliance import Appliance, laid_over, running

MEGABYTE = b"x" * 1_048_576
TIGHT = {"body": 4096, "header": 8192, "read_timeout": 0.7, "write_timeout": 2, "json_depth": 16}


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One with short times and small sizes."""
    config = laid_over(CONFIG, {"limits": TIGHT})
    appliance = Appliance(tmp_path_factory.mktemp("tight"), config)
    try:
        trio.run(appliance.start)
        yield appliance
        assert trio.run(appliance.stop) == 0
    finally:
        trio.run(appliance.end)


async def connections(appliance: Appliance) -> int:
    """Open at the appliance, without the one that asks."""
    async with appliance.client() as client:
        counts = (await client.get("/system/tree")).json()["counts"]
    return int(counts["connections"]) - 1


async def all_gone(appliance: Appliance) -> None:
    """Return when no connection is left."""
    with trio.fail_after(10):
        while await connections(appliance):
            await trio.sleep(0.05)


# -- size -----------------------------------------------------------------------------


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(
    tight: Appliance,
) -> None:
    async with raw(tight) as connection:
        await connection.send(request(tight, "POST", "/gateway/start", length=4097))
        answer = await connection.answer()
        assert answer.status == 413
        assert json.loads(answer.body)["error"]["code"] == "too_large"
    await all_gone(tight)


async def test_a_body_of_just_the_size_is_read(tight: Appliance) -> None:
    async with tight.client() as client:
        body = b"{" + b" " * 4094 + b"}"
        is_envelope(await client.post("/gateway/start", content=body), 422, "invalid")


async def test_a_chunked_body_is_counted_as_it_comes(tight: Appliance) -> None:
    async def chunks() -> Any:
        for _ in range(5):
            yield b" " * 1000

    async with tight.client() as client:
        is_envelope(await client.post("/gateway/start", content=chunks()), 413, "too_large")
    await all_gone(tight)


async def _pour(connection: Raw, megabytes: int, chunked: bool) -> None:
    """Go on sending, whatever is answered, until it is all sent or nobody takes it."""
    try:
        for _ in range(megabytes):
            if chunked:
                await connection.send(b"%x\r\n" % len(MEGABYTE))
            await connection.send(MEGABYTE)
            if chunked:
                await connection.send(b"\r\n")
    except trio.BrokenResourceError:
        return


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_that_goes_on_sending_gets_its_answer(
    tight: Appliance, chunked: bool
) -> None:
    async with raw(tight) as connection:
        head = (
            request(tight, "POST", "/system/tokens", headers={"Transfer-Encoding": "chunked"})
            if chunked
            else request(tight, "POST", "/system/tokens", length=50 * len(MEGABYTE))
        )
        await connection.send(head)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pour, connection, 50, chunked)
            assert (await connection.answer()).status == 413
            nursery.cancel_scope.cancel()
    await all_gone(tight)


async def test_a_body_where_none_belongs_does_no_harm(tight: Appliance) -> None:
    async with raw(tight) as connection:
        await connection.send(request(tight, "GET", "/healthz", b"x" * 3000))
        assert (await connection.answer()).status == 200
    async with raw(tight) as connection:
        await connection.send(request(tight, "GET", "/healthz", length=50 * len(MEGABYTE)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pour, connection, 50, False)
            assert (await connection.answer()).status == 413
            nursery.cancel_scope.cancel()
    await all_gone(tight)


@pytest.mark.parametrize(
    "head",
    [
        "GET /gateway/list HTTP/1.1\r\nHost: x\r\nX-Long: " + "y" * 20_000 + "\r\n\r\n",
        "GET /gateway/list?" + "y" * 20_000 + " HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /gateway/list HTTP/1.1\r\nHost: x\r\n" + "X-Many: y\r\n" * 2_000 + "\r\n",
    ],
)
async def test_a_head_that_is_too_large(tight: Appliance, head: str) -> None:
    async with raw(tight) as connection:
        await connection.send(head)
        answer = await connection.answer()
        assert answer.status == 431
        assert json.loads(answer.body)["error"]["code"] == "too_large"
        assert await connection.rest() == b""
    await all_gone(tight)


async def test_a_head_without_an_end_is_not_collected(tight: Appliance) -> None:
    async with raw(tight) as connection:
        await connection.send("GET /gateway/list HTTP/1.1\r\nHost: x\r\nX-Long: " + "y" * 9_000)
        assert (await connection.answer()).status == 431
        assert await connection.rest() == b""
    async with raw(tight) as connection:
        with pytest.raises(trio.BrokenResourceError):
            await connection.send("GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
            while True:
                await connection.send(MEGABYTE)
    await all_gone(tight)


async def test_json_that_is_nested_too_deep(tight: Appliance) -> None:
    async with tight.client() as client:
        for depth, code in ((16, 404), (17, 422), (2000, 422)):
            body = '{"a":' * depth + "1" + "}" * depth
            body = body[:4096] if depth > 100 else body
            answer = await client.post("/gateway/command?gw_id=never-was", content=body)
            assert answer.status_code == code, depth


async def test_json_that_is_no_utf8(tight: Appliance) -> None:
    async with tight.client() as client:
        for body in (b'{"name":"\xff"}', b"\xff\xfe{}", '{"name":"ä"}'.encode("latin-1")):
            is_plain(await client.post("/system/tokens", content=body), 422, "invalid")


# -- time -----------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["", "GET", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: y"])
async def test_a_head_that_does_not_come_is_not_waited_for(tight: Appliance, said: str) -> None:
    async with raw(tight, within=5) as connection:
        await connection.send(said)
        assert await connection.rest() == b""
    await all_gone(tight)


async def test_a_head_that_comes_drop_by_drop_is_not_waited_for(tight: Appliance) -> None:
    async with raw(tight, within=8) as connection:
        await connection.send("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await connection.send("y")
                await trio.sleep(0.1)
    await all_gone(tight)


async def test_a_body_that_does_not_come_is_not_waited_for(tight: Appliance) -> None:
    async with raw(tight, within=8) as connection:
        await connection.send(request(tight, "POST", "/system/tokens", b'{"name":', length=500))
        answer = await connection.answer()
        assert answer.status == 408
        assert json.loads(answer.body)["error"]["code"] == "timeout"
        assert await connection.rest() == b""
    await all_gone(tight)


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(tight: Appliance) -> None:
    whole = request(tight, "POST", "/system/tokens", b'{"name":"half","scopes":["*"]}')
    for cut in range(1, len(whole), 23):
        async with raw(tight) as connection:
            await connection.send(whole[:cut])
    await all_gone(tight)
    async with tight.client() as client:
        listed = (await client.get("/system/tokens")).json()["tokens"]
    assert "half" not in [token["name"] for token in listed]


async def test_what_is_no_http_is_answered_or_closed(tight: Appliance) -> None:
    for said in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
        b"HELO mail\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"POST /system/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /system/tokens HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nA\0B: c\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        async with raw(tight, within=5) as connection:
            await connection.send(said)
            rest = await connection.rest()
            assert rest == b"" or rest.startswith(b"HTTP/1.1 4"), (said, rest)
    await all_gone(tight)


async def test_requests_in_a_row_are_answered_in_their_order(tight: Appliance) -> None:
    async with raw(tight) as connection:
        paths = ["/health", "/version", "/nothing", "/readyz"] * 5
        await connection.send(b"".join(request(tight, "GET", path) for path in paths))
        bodies = []
        for _ in paths:
            bodies.append(json.loads((await connection.answer()).body))
        shown = [next(iter(body)) for body in bodies]
        assert shown == ["status", "title", "error", "ready"] * 5


# -- connections ------------------------------------------------------------------------


async def test_connections_past_the_limit_are_turned_away(tmp_path: Path) -> None:
    limits = {"connections": 6, "connections_per_address": 4}
    async with running(tmp_path, {"limits": limits}) as appliance:
        async with trio.open_nursery() as nursery:

            async def stay(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
                async with appliance.ws() as socket:
                    await socket.get_message()
                    task_status.started()
                    await trio.sleep_forever()

            for _ in range(4):
                await nursery.start(stay)
            async with raw(appliance) as connection:
                await connection.send(request(appliance, "GET", "/healthz"))
                answer = await connection.answer()
                assert answer.status == 503
                assert answer.headers["retry-after"] == "1"
            nursery.cancel_scope.cancel()
        await all_gone(appliance)


# -- rates ------------------------------------------------------------------------------


async def test_a_rate_that_is_passed(tmp_path: Path) -> None:
    limits = {"requests_per_minute": 3, "rate_limit_loopback": True}
    async with (
        running(tmp_path, {"limits": limits}) as appliance,
        appliance.client(event_hooks={}) as client,
    ):
        # The wait for readiness was the first request.
        for left in (1, 0):
            answer = await client.get("/gateway/list")
            assert answer.status_code == 200
            assert answer.headers["x-ratelimit-limit"] == "3"
            assert answer.headers["x-ratelimit-remaining"] == str(left)
            assert 0 < int(answer.headers["x-ratelimit-reset"]) <= 60
        answer = await client.get("/gateway/list")
        is_envelope(answer, 429, "rate_limited")
        assert 0 < int(answer.headers["retry-after"]) <= 20
        assert answer.headers["x-ratelimit-remaining"] == "0"
        is_plain(await client.get("/system/tree"), 429, "rate_limited")


async def test_loopback_has_no_rate_unless_told(shared: Appliance) -> None:
    async with shared.client() as client:
        assert "x-ratelimit-limit" not in (await client.get("/system/tree")).headers


def test_a_bucket_fills_evenly() -> None:
    rates = Rates(60)
    assert [rates.take("a", 0.0).allowed for _ in range(61)] == [True] * 60 + [False]  # type: ignore[union-attr]
    refused = rates.take("a", 0.5)
    assert refused is not None
    assert (refused.allowed, refused.reset) == (False, 0.5)
    allowed = rates.take("a", 1.0)
    assert allowed is not None
    assert allowed.allowed
    other = rates.take("b", 1.0)
    assert other is not None
    assert (other.allowed, other.remaining) == (True, 59)


def test_buckets_are_bounded() -> None:
    rates = Rates(1)
    for number in range(MAX_ADDRESSES + 100):
        rates.take(str(number), 0.0)
    assert len(rates._buckets) == MAX_ADDRESSES


def test_nought_is_no_limit() -> None:
    assert Rates(0).take("a", 0.0) is None


# -- a request's id -----------------------------------------------------------------------


async def test_a_request_id_is_in_the_answer_and_in_the_log(shared: Appliance) -> None:
    async with shared.client() as client:
        mine = name("request")
        answer = await client.post(
            "/gateway/stop", json={"gw_id": "never-was"}, headers={"X-Request-ID": mine}
        )
        assert answer.headers["x-request-id"] == mine
        given = (await client.post("/system/reload", json={"dry": True})).headers["x-request-id"]
        bad = {"X-Request-ID": "x" * 65}
        assert (await client.get("/system/tree", headers=bad)).headers["x-request-id"] != "x" * 65
    logged = {line.get("request_id"): line for line in shared.log_lines()}
    assert logged[mine]["status"] == 404
    assert logged[mine]["path"] == "/gateway/stop"
    assert logged[given]["status"] == 200
    assert logged[given]["caller"] == "admin"
