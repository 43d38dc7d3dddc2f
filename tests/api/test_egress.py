"""The egress surface as its clients know it (contracts/egress.md, DECISIONS.md).

Nothing is recorded here: an appliance takes tasks and begins none. That the contract's examples
record is looked at in tests/flows/egress.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import trio

from tests.actors.egress.examples import NATIVE, STATUS, STOP, WEB
from tests.api.egress import APP, IDLE, body, files_of, is_named, over, request_id, started
from tests.api.kit import is_plain, make_token
from tests.appliance import Appliance, laid_over

OPEN = laid_over(IDLE, {"auth": {"anonymous": ["egress", "events"]}})
NOBODY = "0" * 16
# What the contract shows of a status, and of its payload.
STATUS_FIELDS = {"request_id", "task_id", "state", "action", "created_at", "error", "payload"}
PAYLOAD_FIELDS = {"layout", "channel", "users", "files", "format", "video", "audio"}


def made(folder: Any, config: dict[str, Any]) -> Iterator[Appliance]:
    appliance = Appliance(folder, config)
    try:
        trio.run(appliance.start)
        yield appliance
        assert trio.run(appliance.stop) == 0
        assert "request_failed" not in appliance.log.read_text()
    finally:
        trio.run(appliance.end)


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance that takes tasks and begins none."""
    yield from made(tmp_path_factory.mktemp("egress"), IDLE)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """The same, open to everybody."""
    yield from made(tmp_path_factory.mktemp("open"), OPEN)


# -- the contract's examples ----------------------------------------------------------------


@pytest.mark.parametrize("example", [NATIVE, WEB], ids=["native", "web"])
async def test_a_start_is_answered_as_documented(
    opened: Appliance, example: dict[str, Any]
) -> None:
    """Without a token, as clients of that system send none."""
    async with opened.client(token=None) as client:
        answer = await client.post("/egress/v1/examples/tasks", json=example)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert set(found) == {"request_id", "task_id", "status"}
        assert found["request_id"] == example["request_id"]
        assert found["status"] == "enqueued"
        assert found["task_id"] == f"{int(found['task_id'], 16):0{len(found['task_id'])}x}"
        # Said again it is the same task.
        again = await client.post("/egress/v1/examples/tasks", json=example)
        assert again.json() == found


async def test_a_status_is_answered_as_documented(opened: Appliance) -> None:
    async with opened.client(token=None) as client:
        example = NATIVE | {"request_id": request_id()}
        task_id = (await client.post(APP, json=example)).json()["task_id"]
        answer = await client.post(f"{APP}/{task_id}/status", json=STATUS)
        assert answer.status_code == 200
        found = answer.json()
        assert set(found) >= STATUS_FIELDS
        assert set(found["payload"]) >= PAYLOAD_FIELDS
        assert (found["request_id"], found["task_id"]) == (STATUS["request_id"], task_id)
        assert (found["state"], found["action"], found["error"]) == ("ENQUEUED", "start", "")
        assert found["payload"] == NATIVE["payload"] | {"access_token": "***", "files": []}
        # The same without a body, and without the request's id.
        got = (await client.get(f"{APP}/{task_id}")).json()
        assert {"request_id": STATUS["request_id"]} | got == found


async def test_a_stop_of_what_has_ended_is_completed(opened: Appliance) -> None:
    async with opened.client(token=None) as client:
        task_id = await over(client)
        for _ in range(2):
            answer = await client.post(f"{APP}/{task_id}/stop", json=STOP)
            assert answer.status_code == 200
            found = answer.json()
            assert found["request_id"] == STOP["request_id"]
            assert (found["task_id"], found["status"]) == (task_id, "completed")
            assert found["message"]


async def test_a_stop_of_what_there_is_not_is_rejected(opened: Appliance) -> None:
    async with opened.client(token=None) as client:
        for task_id in ("1ta5k3552", NOBODY, "x" * 300):
            answer = await client.post(f"{APP}/{task_id}/stop", json=STOP)
            assert answer.status_code == 404
            found = answer.json()
            assert set(found) == {"request_id", "task_id", "status", "error"}
            assert (found["request_id"], found["task_id"]) == (STOP["request_id"], task_id)
            assert found["status"] == "rejected"
            assert found["error"]


async def test_a_status_of_what_there_is_not(opened: Appliance) -> None:
    async with opened.client(token=None) as client:
        answer = await client.post(f"{APP}/{NOBODY}/status", json=STATUS)
        assert NOBODY in is_named(answer, 404, STATUS["request_id"])
        is_named(await client.get(f"{APP}/{NOBODY}"), 404)


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("request_id", {"request_id": ""}),
        ("request_id", {"request_id": "a" * 33}),
        ("request_id", {"request_id": "a-b"}),
        ("request_id", {"request_id": "ä"}),
        ("request_id", {"request_id": "abc\n"}),
        ("request_id", {"request_id": 5}),
        ("request_id", {"request_id": None}),
        ("cmd", {"cmd": "dance"}),
        ("cmd", {"cmd": None}),
        ("payload", {"payload": None}),
        ("payload", {"payload": []}),
        ("channel", {"payload": {}}),
        ("egress.channels", {"payload": {"channel": "nowhere"}}),
        ("nobody", {"payload": {"channel": "egress_test", "users": ["nobody"]}}),
        ("filename_pattern", {"payload": {"channel": "egress_test", "filename_pattern": "../x"}}),
        ("url", {"payload": {"layout": "freestyle"}}),
        ("page_hosts", {"payload": {"layout": "freestyle", "url": "http://127.0.0.1/"}}),
        ("interval_in_ms", {"cmd": "snapshot"}),
    ],
)
async def test_a_start_that_is_wrong(idle: Appliance, field: str, change: dict[str, Any]) -> None:
    sent = body() | change
    async with idle.client() as client:
        answer = await client.post(APP, json=sent)
    echoed = sent["request_id"] if isinstance(sent["request_id"], str) else ""
    assert field in is_named(answer, 400, echoed)


@pytest.mark.parametrize("field", ["request_id", "cmd", "payload"])
async def test_a_start_needs_all_its_fields(idle: Appliance, field: str) -> None:
    sent = body()
    del sent[field]
    async with idle.client() as client:
        answer = await client.post(APP, json=sent)
    assert field in is_named(answer, 400, sent.get("request_id", ""))


@pytest.mark.parametrize("sent", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100 + b"]" * 100])
@pytest.mark.parametrize("path", [APP, f"{APP}/{NOBODY}/stop", f"{APP}/{NOBODY}/status"])
async def test_what_is_no_request(idle: Appliance, path: str, sent: bytes) -> None:
    async with idle.client() as client:
        is_named(await client.post(path, content=sent), 400)


async def test_other_requests_are_checked_alike(idle: Appliance) -> None:
    async with idle.client() as client:
        for path in ("stop", "status", "spotlight"):
            answer = await client.post(f"{APP}/{NOBODY}/{path}", json={"request_id": "a b"})
            is_named(answer, 400, "a b")
            is_named(await client.post(f"{APP}/{NOBODY}/{path}", json={}), 400)


@pytest.mark.parametrize("app_id", ["a%20b", ".a", "-a", "a" * 65, "ä", "a%0a"])
async def test_an_app_has_a_plain_name(idle: Appliance, app_id: str) -> None:
    async with idle.client() as client:
        sent = body()
        answer = await client.post(f"/egress/v1/{app_id}/tasks", json=sent)
        assert "app_id" in is_named(answer, 400, sent["request_id"])
        is_named(await client.get(f"/egress/v1/{app_id}/tasks"), 400)


@pytest.mark.parametrize(
    "path", ["/egress", "/egress/v1", "/egress/v2/a/tasks", f"{APP}/x/y", "/egress/v1/a/b"]
)
async def test_what_is_no_path_is_told_in_the_surfaces_shape(idle: Appliance, path: str) -> None:
    async with idle.client() as client:
        is_named(await client.get(path), 404)


# -- the same again ---------------------------------------------------------------------------


async def test_the_same_request_is_done_once(idle: Appliance) -> None:
    async with idle.client() as client:
        sent = body(users=["user1"])
        answers: list[httpx.Response] = []

        async def start() -> None:
            answers.append(await client.post(APP, json=sent))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(start)
        assert {a.status_code for a in answers} == {200}
        (task_id,) = {a.json()["task_id"] for a in answers}
        # The order of its fields says nothing.
        turned = {key: sent[key] for key in reversed(sent)}
        assert (await client.post(APP, json=turned)).json()["task_id"] == task_id
        for other in (
            sent | {"cmd": "snapshot", "payload": sent["payload"] | {"interval_in_ms": 1000}},
            sent | {"payload": sent["payload"] | {"users": ["user2"]}},
        ):
            answer = await client.post(APP, json=other)
            assert sent["request_id"] in is_named(answer, 409, sent["request_id"])
        # Another app's is its own.
        other_app = await client.post("/egress/v1/app2/tasks", json=sent)
        assert other_app.json()["task_id"] != task_id


async def test_an_idempotency_key_is_taken_too(idle: Appliance) -> None:
    async with idle.client() as client:
        key = {"Idempotency-Key": f"key-{request_id()}"}
        sent = body()
        first = await client.post(APP, json=sent, headers=key)
        again = await client.post(APP, json=sent, headers=key)
        assert again.json() == first.json()
        assert again.headers["idempotent-replayed"] == "true"
        other = body()
        is_named(await client.post(APP, json=other, headers=key), 409, other["request_id"])


# -- who may -----------------------------------------------------------------------------------


async def test_who_may_look_and_who_may_do(idle: Appliance) -> None:
    async with idle.client() as client:
        task_id = await over(client)
        (files_of(idle, task_id) / "x.mp4").write_bytes(b"x")
        tokens = {
            scope: await make_token(client, scope)
            for scope in ("egress:ro", "egress:rw", "read:*", "gateway:rw")
        }
    one = f"{APP}/{task_id}"
    looks = [
        ("POST", f"{one}/status", STATUS),
        ("GET", one, None),
        ("GET", APP, None),
        ("GET", f"{one}/files/x.mp4", None),
        ("GET", "/egress/v1/capacity", None),
    ]
    does = [
        ("POST", f"{one}/stop", STOP),
        ("POST", f"{one}/upload", None),
        ("POST", APP, body()),
        ("DELETE", one, None),
    ]
    for scope, token in tokens.items():
        async with idle.client(token=token) as client:
            for method, path, sent in looks:
                answer = await client.request(method, path, json=sent)
                assert answer.status_code == (403 if scope == "gateway:rw" else 200), (scope, path)
            for method, path, sent in does if scope != "egress:rw" else ():
                echoed = (sent or {}).get("request_id", "")
                is_named(await client.request(method, path, json=sent), 403, echoed)
    async with idle.client(token=tokens["egress:rw"]) as client:
        for method, path, sent in does:
            answer = await client.request(method, path, json=sent)
            assert answer.status_code == 200, (path, answer.text)


async def test_without_a_token_it_is_closed_unless_it_is_opened(
    idle: Appliance, opened: Appliance
) -> None:
    sent = body()
    async with idle.client(token=None) as client:
        answer = await client.post(APP, json=sent)
        is_named(answer, 401, sent["request_id"])
        assert answer.headers["www-authenticate"].startswith("Bearer")
    async with opened.client(token=None) as client:
        assert (await client.post(APP, json=sent)).status_code == 200
        # What else there is stays closed.
        is_plain(await client.get("/system/tree"), 401, "unauthorized")
        assert (await client.get("/gateway/list")).status_code == 401
    async with opened.client(token="x" * 32) as client:
        is_named(await client.post(APP, json=sent), 401, sent["request_id"])


# -- looking at many, and tidying up ----------------------------------------------------------


async def test_a_list_goes_by_pages(idle: Appliance) -> None:
    base = "/egress/v1/listed/tasks"
    async with idle.client() as client:
        ids = [(await client.post(base, json=body())).json()["task_id"] for _ in range(5)]
        await client.post(f"{base}/{ids[1]}/stop", json=STOP)

        async def found(**query: Any) -> list[str]:
            answer = (await client.get(base, params=query)).json()
            assert set(answer) == {"tasks", "next"}
            return [task["task_id"] for task in answer["tasks"]]

        assert await found() == ids[::-1]
        assert await found(state="STOPPED") == [ids[1]]
        assert await found(state="ENQUEUED") == [ids[4], ids[3], ids[2], ids[0]]
        assert await found(channel="egress_test", limit=2) == [ids[4], ids[3]]
        assert await found(channel="nowhere") == []
        seen: list[str] = []
        before: dict[str, int] = {}
        while True:
            page = (await client.get(base, params={"limit": 2, **before})).json()
            seen += [task["task_id"] for task in page["tasks"]]
            if page["next"] is None:
                break
            before = {"before": page["next"]}
        assert seen == ids[::-1]
        one = (await client.get(f"{base}/{ids[0]}")).json()
        # A list does not tell why each waits.
        assert page["tasks"][-1] == one | {"waiting_for": ""}
        for wrong in ("limit=0", "limit=501", "before=0", "before=x", "state=GONE", "limit="):
            is_named(await client.get(f"{base}?{wrong}"), 400)


async def test_what_has_ended_can_be_deleted(idle: Appliance) -> None:
    async with idle.client() as client:
        running = await started(client)
        is_named(await client.delete(f"{APP}/{running}"), 409)
        task_id = await over(client)
        folder = files_of(idle, task_id)
        (folder / "x.mp4").write_bytes(b"x")
        answer = await client.delete(f"{APP}/{task_id}")
        assert answer.json() == {"request_id": "", "task_id": task_id, "status": "ok"}
        assert not folder.parent.exists()
        is_named(await client.delete(f"{APP}/{task_id}"), 404)
        is_named(await client.get(f"{APP}/{task_id}/files/x.mp4"), 404)


async def test_a_spotlight_is_moved_where_there_is_one(idle: Appliance) -> None:
    async with idle.client() as client:
        flat, lit = await started(client), await started(client, layout="spotlight")

        async def show(task_id: str, user: str) -> httpx.Response:
            sent = {"request_id": "show", "user": user}
            return await client.post(f"{APP}/{task_id}/spotlight", json=sent)

        done = await show(lit, "user2")
        assert done.json() == {"request_id": "show", "task_id": lit, "status": "ok"}
        is_named(await show(flat, "user1"), 409, "show")
        is_named(await show(lit, "nobody"), 400, "show")
        is_named(await show(NOBODY, "user1"), 404, "show")


async def test_what_the_machine_has_can_be_seen(idle: Appliance) -> None:
    async with idle.client() as client:
        await started(client)
        found = (await client.get("/egress/v1/capacity")).json()
    assert set(found["capacity"]) == set(found["free"]) == {"cpu", "memory_mb", "disk_kb"}
    assert found["tasks"] == {"record": 0, "snapshot": 0, "page": 0, "tasks": 0}
    assert found["limits"]["tasks"] == 0
    assert found["waiting"] >= 1
    assert found["disk_free_mb"] > 0
    assert found["claims_stopped"] == ""


async def test_secrets_come_back_nowhere(idle: Appliance) -> None:
    secret = "s3kr1t-4f9c27aa81"
    async with idle.client() as client:
        task_id = await over(
            client,
            access_token=secret,
            rtmp_dst=f"rtmp://user:{secret}@live.example/app/{secret}",
            nested={"api_key": secret, "url": f"http://x.example/?a={secret}"},
        )
        # In what is refused, too.
        refused = body(access_token=secret, rtmp_dst=f"http://{secret}@x/{secret}")
        said = [(await client.post(APP, json=refused)).text]
        said.append((await client.get(f"{APP}/{task_id}")).text)
        said.append((await client.get(APP)).text)
        async with idle.ws("since=0&topics=egress") as socket:
            seen = ""
            while f'"egress/{task_id}"' not in seen or '"egress.stopped"' not in seen:
                seen = str(await socket.get_message())
                said.append(seen)
    assert secret not in "".join(said)
    assert secret not in idle.log.read_text()


# -- over a socket -----------------------------------------------------------------------------


async def commands(appliance: Appliance, token: str | None, *sent: tuple[str, str, Any]) -> Any:
    """The answers to commands over /ws, in their order: (status, body)."""
    found = []
    with trio.fail_after(20):
        async with appliance.ws("topics=none", token) as socket:
            for number, (method, path, what) in enumerate(sent):
                command = {"id": number, "method": method, "path": path}
                if what is not None:
                    command["body"] = what
                await socket.send_message(json.dumps(command))
                got: dict[str, Any] = {}
                while "status" not in got:
                    got = json.loads(await socket.get_message())
                assert got["id"] == number
                found.append((got["status"], got["body"]))
    return found


async def test_all_of_it_goes_over_a_socket_too(opened: Appliance) -> None:
    for token in (opened.token, None):
        sent = body()
        ((status, first),) = await commands(opened, token, ("POST", APP, sent))
        assert (status, first["status"]) == (200, "enqueued")
        one = f"{APP}/{first['task_id']}"
        answers = await commands(
            opened,
            token,
            ("POST", APP, sent),
            ("POST", f"{one}/status", STATUS),
            ("GET", f"{APP}?limit=1", None),
            ("POST", f"{one}/stop", STOP),
            ("POST", f"{APP}/{NOBODY}/stop", STOP),
            ("POST", APP, sent | {"cmd": "dance"}),
            ("GET", "/egress/v1/capacity", None),
            ("DELETE", one, None),
        )
        assert [status for status, _ in answers] == [200, 200, 200, 200, 404, 400, 200, 200]
        assert answers[0][1] == first
        assert set(answers[1][1]) >= STATUS_FIELDS
        assert len(answers[2][1]["tasks"]) == 1
        assert answers[3][1]["status"] == "enqueued"
        assert set(answers[4][1]) == {"request_id", "task_id", "status", "error"}
        assert set(answers[5][1]) == {"error", "request_id"}
        assert answers[5][1]["request_id"] == sent["request_id"]


async def test_files_are_not_fetched_over_a_socket(opened: Appliance) -> None:
    """Nor is a file that is there answered as if it were empty, to whomever."""
    async with opened.client() as client:
        task_id = await over(client)
    (files_of(opened, task_id) / "x.mp4").write_bytes(b"x")
    for token in (opened.token, None):
        ((status, found),) = await commands(
            opened, token, ("GET", f"{APP}/{task_id}/files/x.mp4", None)
        )
        assert status == 409
        assert "over HTTP" in found["error"]
