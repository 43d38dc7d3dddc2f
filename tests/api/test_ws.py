"""/ws: every event once and in order, commands in any number, and no harm from anybody."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.api.kit import CONFIG, handshake, is_plain, make_token, name, start_request
from tests.api.raw import Raw, raw
from tests.appliance import Appliance, inside, running

Frame = dict[str, Any]


async def frame(socket: WebSocketConnection) -> Frame:
    """The next frame."""
    found: Frame = json.loads(await socket.get_message())
    return found


async def event(socket: WebSocketConnection) -> Frame:
    """The next event."""
    while "seq" not in (found := await frame(socket)):
        continue
    return found


async def answers(socket: WebSocketConnection, ids: Iterable[Any]) -> dict[Any, Frame]:
    """The answers to these commands, whatever comes between."""
    left, found = set(ids), {}
    while left:
        got = await frame(socket)
        if "status" in got and "seq" not in got:
            found[got["id"]] = got
            left.discard(got["id"])
    return found


async def command(
    socket: WebSocketConnection, id: Any, method: str, path: str, **more: Any
) -> None:
    await socket.send_message(json.dumps({"id": id, "method": method, "path": path, **more}))


async def some_events(appliance: Appliance, count: int) -> None:
    """Make events, one for each request."""
    async with appliance.client() as client:
        for _ in range(count // 2):
            named = name("event")
            await make_token(client, "read:*", named=named)
            await client.delete(f"/system/tokens/{named}")


# -- events ---------------------------------------------------------------------------


async def test_first_comes_a_hello_that_says_where_the_log_is(shared: Appliance) -> None:
    async with shared.client() as client, shared.ws("topics=gateway,token/x") as socket:
        hello = await frame(socket)
        version = (await client.get("/version")).json()
    assert hello["type"] == "hello"
    assert hello["epoch"] == version["epoch"]
    assert hello["token"] == hello["head"] == version["head"]
    assert hello["topics"] == ["gateway", "token/x"]
    assert hello["heartbeat"] == 30


async def test_without_since_only_what_happens_from_now_on_comes(shared: Appliance) -> None:
    async with shared.client() as client, shared.ws() as socket:
        await frame(socket)
        named = name("token")
        await make_token(client, "gateway:ro", named=named)
        got = await frame(socket)
    assert set(got) == {"seq", "ts", "type", "subject", "data"}
    assert got["type"] == "token.created"
    assert got["subject"] == f"token/{named}"
    assert got["data"] == {"name": named, "scopes": ["gateway:ro"]}


async def test_since_replays_what_came_after_and_goes_on_live(shared: Appliance) -> None:
    async with shared.client() as client:
        before = (await client.get("/version")).json()["head"]
        first, second = name("token"), name("token")
        await make_token(client, "*", named=first)
        async with shared.ws(f"since={before}") as socket:
            assert (await frame(socket))["token"] == before
            assert (await event(socket))["subject"] == f"token/{first}"
            await make_token(client, "*", named=second)
            assert (await event(socket))["subject"] == f"token/{second}"


async def test_since_nought_is_all_that_is_kept(shared: Appliance) -> None:
    async with shared.ws("since=0") as socket:
        assert (await event(socket))["seq"] == 1
        assert (await event(socket))["seq"] == 2


async def test_topics_select(shared: Appliance) -> None:
    async with shared.client() as client:
        head = (await client.get("/version")).json()["head"]
        gw_id, named = name(), name("token")
        await make_token(client, "*", named=named)
        await client.post("/gateway/start", json=start_request(gw_id))
        await client.post("/gateway/stop", json={"gw_id": gw_id})
    expected = {
        "gateway": ["gateway.starting", "gateway.started", "gateway.stopping", "gateway.stopped"],
        "gateway.*": ["gateway.starting", "gateway.started", "gateway.stopping", "gateway.stopped"],
        f"gateway/{gw_id}": ["gateway.starting", "gateway.started"],
        "gateway.started,token.created": ["token.created", "gateway.started"],
        f"token/{named}": ["token.created"],
    }
    for topics, types in expected.items():
        async with shared.ws(f"since={head}&topics={topics}") as socket:
            assert [(await event(socket))["type"] for _ in types] == types, topics


async def test_a_batch_is_many_events_in_one_frame(shared: Appliance) -> None:
    await some_events(shared, 20)
    async with shared.ws("since=0&batch=1") as socket:
        await frame(socket)
        batch = await frame(socket)
    assert batch["type"] == "batch"
    seqs = [e["seq"] for e in batch["events"]]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) > 10
    assert batch["token"].endswith(f":{seqs[-1]}")


@pytest.mark.parametrize(
    ("token", "reason"), [("0badc0de:1", "epoch"), ("{epoch}:999999999", "ahead")]
)
async def test_what_cannot_be_had_is_a_gap_and_then_what_can(
    shared: Appliance, token: str, reason: str
) -> None:
    async with shared.client() as client:
        epoch = (await client.get("/version")).json()["epoch"]
    async with shared.ws(f"since={token.format(epoch=epoch)}") as socket:
        await frame(socket)
        gap = await frame(socket)
        assert gap["type"] == "gap"
        assert gap["reason"] == reason
        assert gap["resumed_at"] == f"{epoch}:0"
        assert (await event(socket))["seq"] == 1


@pytest.mark.parametrize(
    "query",
    ["since=x", "since=a:b", "since=:5", "since=a:-1", "batch=2", "topics=" + "a," * 65, "a=%ff"],
)
async def test_a_query_that_is_wrong(shared: Appliance, query: str) -> None:
    is_plain(await handshake(shared, query, shared.token), 400, "invalid")
    async with shared.client() as client:
        is_plain(await client.get(f"/events?{query}"), 400, "invalid")


async def test_there_is_a_websocket_at_ws_alone(shared: Appliance) -> None:
    async with raw(shared) as connection:
        await connection.send(
            "GET /events HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await connection.answer()).status == 404
    async with shared.client() as client:
        answer = await client.get("/ws")
        assert answer.status_code in (404, 426)


async def test_heartbeats_say_where_to_resume(tmp_path: Path) -> None:
    async with inside(tmp_path, heartbeat=0.05) as appliance, appliance.ws() as socket:
        assert (await frame(socket))["heartbeat"] == 0.05
        await some_events(appliance, 4)
        seen = 0
        with trio.fail_after(10):
            while True:
                got = await frame(socket)
                seen = got.get("seq", seen)
                if got["type"] == "heartbeat":
                    assert set(got) == {"type", "ts", "token", "behind"}
                    if got["token"] == appliance.board.log.token():
                        break
        assert got["behind"] == 0
        assert got["token"].endswith(f":{seen}")


# -- commands -------------------------------------------------------------------------


async def test_a_command_is_answered_under_its_id(shared: Appliance) -> None:
    gw_id = name()
    async with shared.ws("topics=none") as socket:
        await command(socket, 1, "POST", "/gateway/start", body=start_request(gw_id))
        got = (await answers(socket, [1]))[1]
        assert got == {
            "id": 1,
            "status": 200,
            "body": {"status": "success", "data": {"processing_state": "working", "gw_id": gw_id}},
        }
        await command(socket, "a", "get", f"/gateway/status?gw_id={gw_id}")
        assert (await answers(socket, ["a"]))["a"]["body"]["data"]["gw_state"] == "up"
        await command(socket, 2, "POST", "/gateway/stop", body={"gw_id": gw_id})
        assert (await answers(socket, [2]))[2]["body"]["data"] == {"processing_state": "stopped"}


async def test_errors_have_the_shape_of_their_surface(shared: Appliance) -> None:
    async with shared.ws("topics=none") as socket:
        await command(socket, 1, "GET", "/gateway/status?gw_id=never-was")
        await command(socket, 2, "GET", "/gateway/status")
        await command(socket, 3, "POST", "/system/tokens", body={"name": "a b"})
        await command(socket, 4, "PUT", "/gateway/start")
        await command(socket, 5, "GET", "/nothing")
        got = await answers(socket, [1, 2, 3, 4, 5])
    assert {number: answer["status"] for number, answer in got.items()} == {
        1: 404,
        2: 400,
        3: 422,
        4: 405,
        5: 404,
    }
    assert got[1]["body"]["status"] == "error"
    assert got[1]["body"]["data"] is None
    assert got[3]["body"]["error"]["details"] == {}


async def test_many_commands_are_under_way_at_once(shared: Appliance) -> None:
    gw_ids = [name() for _ in range(6)]
    async with shared.ws("topics=none") as socket:
        for gw_id in gw_ids:
            await command(socket, gw_id, "POST", "/gateway/start", body=start_request(gw_id))
        for number in range(300):
            await command(socket, number, "GET", "/gateway/status?gw_id=never-was")
        got = await answers(socket, [*gw_ids, *range(300)])
        assert {got[gw_id]["status"] for gw_id in gw_ids} == {200}
        assert {got[number]["status"] for number in range(300)} == {404}
        for gw_id in gw_ids:
            await command(socket, gw_id, "POST", "/gateway/stop", body={"gw_id": gw_id})
        await answers(socket, gw_ids)


async def test_a_command_takes_an_idempotency_key(shared: Appliance) -> None:
    gw_id = name()
    more = {"body": start_request(gw_id), "idempotency_key": name("key")}
    async with shared.ws("topics=none") as socket:
        await command(socket, 1, "POST", "/gateway/start", **more)
        await answers(socket, [1])
        await command(socket, 2, "POST", "/gateway/start", **more)
        assert (await answers(socket, [2]))[2]["status"] == 200
        await command(socket, 3, "POST", "/gateway/start", body=more["body"])
        assert (await answers(socket, [3]))[3]["status"] == 409
        await command(socket, 4, "POST", "/gateway/stop", body={"gw_id": gw_id})
        await answers(socket, [4])


@pytest.mark.parametrize(
    ("said", "id"),
    [
        ("", None),
        ("{", None),
        ("[]", None),
        ("null", None),
        ("{}", None),
        ('{"id":7}', 7),
        ('{"id":"x","method":"GET"}', "x"),
        ('{"id":8,"method":5,"path":"/"}', 8),
        ('{"id":true,"method":"GET","path":"/"}', None),
        ('{"id":null,"method":"GET","path":"/healthz"}', None),
        ('{"id":9,"method":"GET","path":"/healthz","body":}', None),
        ("[" * 5000, None),
        ("💥", None),
    ],
)
async def test_a_frame_that_is_no_command_is_answered(
    shared: Appliance, said: str, id: Any
) -> None:
    async with shared.ws("topics=none") as socket:
        await frame(socket)
        await socket.send_message(said)
        got = await frame(socket)
        assert (got["id"], got["status"]) == (id, 400)
        assert got["body"]["error"]["code"] == "invalid"
        await command(socket, 1, "GET", "/health")
        assert (await frame(socket))["body"] == {"status": "healthy"}


async def test_a_binary_frame_is_answered(shared: Appliance) -> None:
    async with shared.ws("topics=none") as socket:
        await frame(socket)
        await socket.send_message(b"\x00\xff")
        got = await frame(socket)
        assert (got["id"], got["status"]) == (None, 400)


async def test_an_oversized_frame_closes_the_socket(shared: Appliance) -> None:
    async with shared.ws("topics=none") as socket:
        await frame(socket)
        await socket.send_message(" " * 1_100_000)
        with trio.fail_after(5), pytest.raises(ConnectionClosed) as closed:
            await socket.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1009


async def test_documents_and_texts_come_over_it_too(shared: Appliance) -> None:
    async with shared.ws("topics=none") as socket:
        await command(socket, 1, "GET", "/openapi.json")
        assert (await answers(socket, [1]))[1]["body"]["openapi"] == "3.1.0"
        await command(socket, 2, "GET", "/docs")
        assert (await answers(socket, [2]))[2]["status"] == 404


# -- who may ----------------------------------------------------------------------------


async def test_without_the_scope_for_events_one_may_send_and_hears_nothing(
    shared: Appliance,
) -> None:
    async with shared.client() as client:
        token = await make_token(client, "gateway:ro")
        async with shared.ws("since=0", token=token) as socket:
            assert (await frame(socket))["type"] == "hello"
            await make_token(client, "gateway:ro")
            await command(socket, 1, "GET", "/gateway/status?gw_id=never-was")
            await command(socket, 2, "POST", "/gateway/stop", body={"gw_id": "x"})
            got = [await frame(socket), await frame(socket)]
    assert {(f["id"], f["status"]) for f in got} == {(1, 404), (2, 403)}


async def test_without_any_scope_a_stream_of_events_is_refused(shared: Appliance) -> None:
    async with shared.client() as client:
        token = await make_token(client, "gateway:ro")
        async with shared.client(token=token) as other:
            is_plain(await other.get("/events"), 403, "forbidden")


async def test_subscribers_have_a_limit(tmp_path: Path) -> None:
    limits = {"limits": {"subscribers": 2}}
    async with running(tmp_path, limits) as appliance, appliance.client() as client:
        async with appliance.ws() as one, client.stream("GET", "/events") as two:
            await frame(one)
            assert two.status_code == 200
            answer = await handshake(appliance, token=appliance.token)
            is_plain(answer, 503, "too_many")
            assert answer.headers["retry-after"] == "5"
            async with appliance.client() as other:
                is_plain(await other.get("/events"), 503, "too_many")
        with trio.fail_after(5):
            while (await client.get("/system/tree")).json()["counts"]["subscribers"]:
                await trio.sleep(0.02)
        async with appliance.ws() as again:
            await frame(again)


# -- cut off, and slow --------------------------------------------------------------------


async def test_a_thousand_cuts_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    """Cut off at any moment, also between two bytes of a frame, and resumed by the last number."""
    rng = random.Random(7)
    async with inside(tmp_path) as appliance:
        log, cuts = appliance.board.log, 0
        seen: list[int] = []
        since = f"{log.epoch}:0"
        head = (
            f"GET /ws?since={{since}} HTTP/1.1\r\nHost: x\r\nX-API-Key: {appliance.token}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        over = trio.Event()

        async def happen() -> None:
            number = 0
            while not over.is_set():
                number += 1
                await appliance.board.store.write(
                    lambda tx: tx.emit("test.event", "test/x", {"number": number})  # noqa: B023
                )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(happen)
            with trio.fail_after(60):
                while cuts < 1000:
                    async with raw(appliance) as connection:
                        await connection.send(head.format(since=since))
                        await _take(connection, seen, rng.randrange(4000))
                    cuts += 1
                    since = f"{log.epoch}:{seen[-1] if seen else 0}"
            over.set()
    assert len(seen) > 1000
    assert seen == list(range(1, len(seen) + 1))


async def _take(connection: Raw, seen: list[int], limit: int) -> None:
    """Read so many bytes and no more; of what came whole, note the numbers of events."""
    data = b""
    while len(data) < limit:
        data += await connection.stream.receive_some(min(500, limit - len(data)))
    _, _, frames = data.partition(b"\r\n\r\n")
    while len(frames) >= 2:
        size, at = frames[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(frames[2:4], "big"), 4
        if len(frames) < at + size:
            return
        found = json.loads(frames[at : at + size])
        if "seq" in found:
            seen.append(found["seq"])
        frames = frames[at + size :]


async def test_one_that_never_reads_holds_up_nobody_and_takes_no_memory(tmp_path: Path) -> None:
    config = {**CONFIG, "server": {"grace": 1}, "limits": {"write_timeout": 1.0}}
    async with running(tmp_path, config) as appliance:
        process = psutil.Process(appliance.pid)
        async with appliance.client() as client:
            silent = [await _silent(appliance) for _ in range(20)]
            big = "x" * 2000
            body = start_request("gw01", "plain", from_id=big)
            await client.post("/gateway/start", json=body)
            answer = len((await client.get("/openapi.json")).content)
            before = process.memory_info().rss
            async with appliance.ws("topics=token") as reader:
                await frame(reader)
                # Hundreds of MB in all for those that do not read: far more than sockets hold.
                for _ in range(6):
                    await some_events(appliance, 50)
                    for stream in silent:
                        await _ask_much(stream)
                with trio.fail_after(5):
                    for _ in range(300):
                        await event(reader)
            # A few answers for each of them, of more than a hundred.
            assert process.memory_info().rss - before < 20 * 8 * answer
            with trio.fail_after(10):
                while (await client.get("/system/tree")).json()["counts"]["subscribers"]:
                    await trio.sleep(0.1)
        begun = trio.current_time()
        assert await appliance.stop() == 0
        assert trio.current_time() - begun < 8
        for stream in silent:
            await trio.aclose_forcefully(stream)


async def _silent(appliance: Appliance) -> trio.SocketStream:
    """A WebSocket that is opened and never read."""
    stream = await trio.open_tcp_stream("127.0.0.1", appliance.port)
    await stream.send_all(
        (
            f"GET /ws?since=0 HTTP/1.1\r\nHost: x\r\nX-API-Key: {appliance.token}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()
    )
    return stream


async def _ask_much(stream: trio.SocketStream) -> None:
    """Send commands whose answers are large (the OpenAPI document)."""
    text = b'{"id":1,"method":"GET","path":"/openapi.json"}'
    masked = b"\x81" + bytes([0x80 | len(text)]) + b"\0\0\0\0" + text
    try:
        with trio.move_on_after(0.05):
            await stream.send_all(masked * 20)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return
