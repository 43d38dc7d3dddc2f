"""The gateway surface as its clients know it: every example, and every error it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.api.kit import is_envelope, make_token, name, start_request
from tests.appliance import Appliance, running

# The examples of the contract, as they stand.
FULL_START = {
    "type": "Record",
    "room": "room_name",
    "gw_id": "gw01",
    "webrtc_domain": {"provider": {"name": "x", "domain": "example.com"}},
    "from_id": "optional",
    "prefix": "optional",
    "rtmp_dst": "rtmp://...",
    "dial": "sip:...",
    "loop": False,
    "transcript": False,
    "audio_only": True,
    "api_key": "optional",
    "recipient_mail": "user@example.com",
    "main_app": "recording",
}
JSON = {"Content-Type": "application/json"}


async def test_the_examples_work_as_they_stand_with_the_default_configuration(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as appliance, appliance.client() as client:

        async def post(path: str, body: str) -> Any:
            answer = await client.post(path, content=body, headers=JSON)
            assert answer.status_code == 200, answer.text
            return answer.json()

        assert await post(
            "/gateway/start",
            '{"type":"Record","room":"test-room","gw_id":"gw01","main_app":"recording"}',
        ) == {"status": "success", "data": {"processing_state": "working", "gw_id": "gw01"}}

        answer = await client.get("/gateway/status?gw_id=gw01")
        assert answer.status_code == 200
        status = answer.json()
        assert status["status"] == "success"
        assert status["data"]["gw_state"] == "up"
        assert status["data"]["gw_id"] == "gw01"
        assert status["data"]["recording_duration"] == "00:00:00"
        assert status["data"]["transcript_progress"] == "0%"
        assert isinstance(status["data"]["detail"], str)

        pong = await post("/gateway/command?gw_id=gw01", '{"action":"ping"}')
        assert pong["data"]["ack"] is True
        assert pong["data"]["received"]["action"] == "ping"

        assert await post("/gateway/stop", '{"gw_id":"gw01"}') == {
            "status": "success",
            "data": {"processing_state": "stopped"},
        }
        answer = await client.get("/gateway/status?gw_id=gw01")
        assert answer.json()["data"]["gw_state"] == "down"
        assert answer.json()["data"]["detail"]

        # A stopped one may be started again, with every field that there is.
        answer = await client.post("/gateway/start", json=FULL_START)
        assert answer.status_code == 200, answer.text
        stopped = await client.post("/gateway/stop", json={"gw_id": "gw01", "force": True})
        assert stopped.json()["data"] == {"processing_state": "stopped"}


# -- start --------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["gw_id", "room", "main_app"])
async def test_start_names_the_field_that_is_missing(shared: Appliance, missing: str) -> None:
    body = start_request(name())
    del body[missing]
    async with shared.client() as client:
        answer = await client.post("/gateway/start", json=body)
    assert missing in is_envelope(answer, 422, "invalid")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gw_id", 5),
        ("gw_id", "../etc"),
        ("gw_id", "a" * 65),
        ("gw_id", ""),
        ("room", None),
        ("room", ""),
        ("room", ["hall"]),
        ("room", "hall\nsip_listen 0.0.0.0:5060"),
        ("loop", "yes"),
        ("loop", 1),
        ("transcript", "True"),
        ("audio_only", []),
        ("dial", 5),
        ("main_app", "nothing-of-the-kind"),
    ],
)
async def test_start_names_the_field_that_is_wrong(
    shared: Appliance, field: str, value: Any
) -> None:
    async with shared.client() as client:
        answer = await client.post("/gateway/start", json=start_request(name()) | {field: value})
    assert field in is_envelope(answer, 422, "invalid")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b"{'a': 1}", b"\xff{}"])
async def test_start_wants_a_json_object(shared: Appliance, body: bytes) -> None:
    async with shared.client() as client:
        is_envelope(await client.post("/gateway/start", content=body), 422, "invalid")


async def test_flags_may_be_texts_and_other_fields_reach_the_profile(shared: Appliance) -> None:
    gw_id = name()
    body = start_request(gw_id, loop="false", transcript="true", audio_only=True, colour="blue")
    async with shared.client() as client:
        assert (await client.post("/gateway/start", json=body)).status_code == 200
        answer = await client.post(
            f"/gateway/command?gw_id={gw_id}", json={"command": "environment"}
        )
        environment = answer.json()["data"]["received"]["environment"]
        assert environment["GATEWAY_COLOUR"] == "blue"
        assert environment["GATEWAY_LOOP"] == "false"
        assert environment["GATEWAY_TRANSCRIPT"] == "true"
        assert environment["GATEWAY_AUDIO_ONLY"] == "true"
        assert environment["GATEWAY_ROOM"] == "hall"
        assert (await client.post("/gateway/stop", json={"gw_id": gw_id})).status_code == 200


async def test_a_field_whose_name_could_not_be_one_is_refused(shared: Appliance) -> None:
    async with shared.client() as client:
        answer = await client.post("/gateway/start", json=start_request(name()) | {"a b": "x"})
    assert "a b" in is_envelope(answer, 422, "invalid")


async def test_one_that_is_up_is_not_started_twice(shared: Appliance) -> None:
    gw_id = name()
    async with shared.client() as client:
        assert (await client.post("/gateway/start", json=start_request(gw_id))).status_code == 200
        again = await client.post("/gateway/start", json=start_request(gw_id))
        assert gw_id in is_envelope(again, 409, "already_running")
        await client.post("/gateway/stop", json={"gw_id": gw_id})
        assert (await client.post("/gateway/start", json=start_request(gw_id))).status_code == 200
        await client.post("/gateway/stop", json={"gw_id": gw_id})


async def test_a_start_that_fails_says_why(shared: Appliance) -> None:
    gw_id = name()
    async with shared.client() as client:
        answer = await client.post("/gateway/start", json=start_request(gw_id, "broken"))
        message = is_envelope(answer, 500, "start_failed")
        assert "7" in message
        assert "no sound card here" in message
        status = (await client.get("/gateway/status", params={"gw_id": gw_id})).json()["data"]
        assert status["gw_state"] == "down"
        assert "no sound card here" in status["detail"]


# -- stop -----------------------------------------------------------------------------


async def test_stop_of_one_that_never_was(shared: Appliance) -> None:
    async with shared.client() as client:
        answer = await client.post("/gateway/stop", json={"gw_id": "never-was"})
    is_envelope(answer, 404, "not_found")


async def test_stop_of_a_stopped_one_is_no_error(shared: Appliance) -> None:
    gw_id = name()
    async with shared.client() as client:
        await client.post("/gateway/start", json=start_request(gw_id))
        for _ in range(3):
            answer = await client.post("/gateway/stop", json={"gw_id": gw_id, "force": "true"})
            assert answer.json() == {"status": "success", "data": {"processing_state": "stopped"}}


@pytest.mark.parametrize("body", [{}, {"gw_id": 5}, {"gw_id": "x", "force": "maybe"}, []])
async def test_stop_wants_an_id(shared: Appliance, body: Any) -> None:
    async with shared.client() as client:
        is_envelope(await client.post("/gateway/stop", json=body), 422, "invalid")


# -- status ---------------------------------------------------------------------------


async def test_status_without_an_id(shared: Appliance) -> None:
    async with shared.client() as client:
        assert "gw_id" in is_envelope(await client.get("/gateway/status"), 400, "invalid")


async def test_status_of_one_that_never_was(shared: Appliance) -> None:
    async with shared.client() as client:
        for gw_id in ("never-was", "", "%00", "../../etc/passwd", "💥"):
            answer = await client.get("/gateway/status", params={"gw_id": gw_id})
            is_envelope(answer, 404, "not_found")


async def test_status_of_a_stopped_one_is_down_with_a_detail(shared: Appliance) -> None:
    gw_id = name()
    async with shared.client() as client:
        await client.post("/gateway/start", json=start_request(gw_id))
        await client.post("/gateway/stop", json={"gw_id": gw_id})
        status = (await client.get(f"/gateway/status?gw_id={gw_id}")).json()["data"]
    assert status["gw_state"] == "down"
    assert status["detail"]


# -- command ----------------------------------------------------------------------------


async def test_any_object_is_a_command_and_the_answer_comes_back(shared: Appliance) -> None:
    gw_id = name()
    async with shared.client() as client:
        await client.post("/gateway/start", json=start_request(gw_id))
        payload = {"command": "dance", "steps": [1, {"deep": None}], "é": "ü"}
        answer = await client.post(f"/gateway/command?gw_id={gw_id}", json=payload)
        assert answer.json() == {"status": "success", "data": {"ack": True, "received": payload}}
        await client.post("/gateway/stop", json={"gw_id": gw_id})


async def test_a_command_to_a_stopped_one_is_forbidden(shared: Appliance) -> None:
    gw_id = name()
    async with shared.client() as client:
        await client.post("/gateway/start", json=start_request(gw_id))
        await client.post("/gateway/stop", json={"gw_id": gw_id})
        answer = await client.post(f"/gateway/command?gw_id={gw_id}", json={"action": "ping"})
    is_envelope(answer, 403, "stopped")


async def test_a_command_to_one_that_never_was(shared: Appliance) -> None:
    async with shared.client() as client:
        answer = await client.post("/gateway/command?gw_id=never-was", json={"action": "ping"})
    is_envelope(answer, 404, "not_found")


async def test_a_command_without_an_id(shared: Appliance) -> None:
    async with shared.client() as client:
        answer = await client.post("/gateway/command", json={"action": "ping"})
    assert "gw_id" in is_envelope(answer, 400, "invalid")


async def test_a_command_that_is_no_object(shared: Appliance) -> None:
    async with shared.client() as client:
        for body in (b"[]", b"5", b"", b"nonsense"):
            answer = await client.post("/gateway/command?gw_id=never-was", content=body)
            is_envelope(answer, 422, "invalid")


async def test_a_profile_without_a_control_channel_takes_only_a_ping(shared: Appliance) -> None:
    gw_id = name()
    path = f"/gateway/command?gw_id={gw_id}"
    async with shared.client() as client:
        await client.post("/gateway/start", json=start_request(gw_id, "plain"))
        answer = await client.post(path, json={"action": "ping"})
        assert answer.json()["data"] == {"ack": True, "received": {"action": "ping", "pong": True}}
        is_envelope(await client.post(path, json={"command": "dial"}), 409, "unsupported")
        await client.post("/gateway/stop", json={"gw_id": gw_id})


async def test_a_gateway_that_dies_of_a_command_answers_so(shared: Appliance) -> None:
    gw_id = name()
    async with shared.client() as client:
        await client.post("/gateway/start", json=start_request(gw_id))
        answer = await client.post(f"/gateway/command?gw_id={gw_id}", json={"command": "die"})
        is_envelope(answer, 502, "control_lost")


# -- list -------------------------------------------------------------------------------


async def test_a_list_comes_page_by_page_in_order(shared: Appliance) -> None:
    ids = sorted(name("listed") for _ in range(3))
    async with shared.client() as client:
        for gw_id in ids:
            await client.post("/gateway/start", json=start_request(gw_id, "plain"))
        seen: list[str] = []
        after = "listed"
        while True:
            query: dict[str, Any] = {"after": after, "limit": 2, "state": "up"}
            page = (await client.get("/gateway/list", params=query)).json()["data"]
            seen += [g["gw_id"] for g in page["gateways"] if g["gw_id"].startswith("listed")]
            assert len(page["gateways"]) <= 2
            if page["next"] is None:
                break
            after = page["next"]
        assert seen == ids
        for gw_id in ids:
            await client.post("/gateway/stop", json={"gw_id": gw_id, "force": True})


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "state=sideways"])
async def test_a_list_query_that_is_wrong(shared: Appliance, query: str) -> None:
    async with shared.client() as client:
        answer = await client.get(f"/gateway/list?{query}")
    assert query.partition("=")[0] in is_envelope(answer, 422, "invalid")


# -- who may ------------------------------------------------------------------------------

OPERATIONS = [
    ("POST", "/gateway/start", "gateway:rw"),
    ("POST", "/gateway/stop", "gateway:rw"),
    ("GET", "/gateway/status?gw_id=x", "gateway:ro"),
    ("POST", "/gateway/command?gw_id=x", "gateway:rw"),
    ("GET", "/gateway/list", "gateway:ro"),
]


@pytest.mark.parametrize(("method", "path", "scope"), OPERATIONS)
async def test_a_token_is_needed_and_its_scope(
    shared: Appliance, method: str, path: str, scope: str
) -> None:
    async with shared.client() as admin:
        wrong = await make_token(admin, "system:rw", "events:ro", "job:*")
        right = await make_token(admin, scope)
    async with shared.client(token=None) as client:
        for headers in ({}, {"Authorization": "Bearer nonsense"}, {"X-API-Key": "nonsense"}):
            answer = await client.request(method, path, headers=headers)
            is_envelope(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
    async with shared.client(token=wrong) as client:
        assert scope in is_envelope(await client.request(method, path), 403, "forbidden")
    async with shared.client(token=right) as client:
        assert (await client.request(method, path)).status_code in (200, 404, 422)


async def test_what_is_no_operation_has_the_shape_of_its_surface(shared: Appliance) -> None:
    async with shared.client() as client:
        is_envelope(await client.get("/gateway/nothing"), 404, "not_found")
        answer = await client.get("/gateway/start")
        is_envelope(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "POST"
