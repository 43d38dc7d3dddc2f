"""Runtime configuration and calls: every example of the contract as it stands, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.actors.call.test_resolve import TEXT, shape
from tests.api.calls import BASE, Gateway, event, gateway, is_actionable
from tests.api.kit import make_token

JSON = {"Content-Type": "application/json"}
START = (
    '{"provider": "plivo", "provider_call_id": "...", "provider_stream_id": "...",'
    ' "phone_number_id": "...", "from_number": "+91...", "to_number": "+91...",'
    ' "started_at": "2025-12-31T10:00:00.123456Z"}'
)
EVENTS = (
    '{"events": [{"ts": "2025-12-31T10:00:01.123456Z", "type": "plivo_start", "payload": {}},'
    ' {"ts": "2025-12-31T10:00:02.123456Z", "type": "tool_call", "payload": {}},'
    ' {"ts": "2025-12-31T10:00:03.123456Z", "type": "transcript",'
    ' "payload": {"tag": "CALLER", "text": "hi"}}]}'
)
END = '{"ended_at": "2025-12-31T10:02:00.123456Z", "status": "ended", "duration_seconds": 123}'
ARTIFACTS = (
    '{"recording": {"stereo_url": "https://...", "caller_url": "...", "agent_url": "..."},'
    ' "transcript": {"text_url": "https://...", "jsonl_url": "..."}}'
)
RESOLVE = "/internal/v1/runtime/phone_numbers"


async def test_a_call_as_the_contract_tells_it(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:

        async def post(path: str, body: str) -> Any:
            answer = await it.client.post(f"{BASE}{path}", content=body, headers=JSON)
            assert answer.status_code == 200, answer.text
            return answer.json()

        call_id = (await post("/start", START))["call_id"]
        assert len(call_id) == 36
        assert await post(f"/{call_id}/events", EVENTS) == {"status": "ok"}
        assert await post(f"/{call_id}/end", END) == {"call_id": call_id}
        assert await post(f"/{call_id}/artifacts", ARTIFACTS) == {"call_id": call_id}
        # All of it again, as one who got no answer sends it.
        assert await post("/start", START) == {"call_id": call_id}
        assert await post(f"/{call_id}/events", EVENTS) == {"status": "ok"}
        assert await post(f"/{call_id}/end", END) == {"call_id": call_id}
        assert await post(f"/{call_id}/artifacts", ARTIFACTS) == {"call_id": call_id}

        found = await it.call(call_id)
        assert found["status"] == "ended"
        assert (found["duration_seconds"], found["duration_computed"]) == (123, 120)
        assert found["duration_differs"] is True
        assert found["events"] == 3
        assert found["outcome"] == "completed"
        assert found["artifacts"]["recording"]["stereo_url"] == "https://..."
        assert found["artifacts"]["transcript"] == {"text_url": "https://...", "jsonl_url": "..."}
        events = await it.events(call_id)
        assert [e["type"] for e in events] == ["plivo_start", "tool_call", "transcript"]
        assert events[2]["ts"] == "2025-12-31T10:00:03.123456Z"
        assert events[2]["payload"] == {"tag": "CALLER", "text": "hi"}


async def test_the_packaged_number_resolves_to_what_the_contract_shows(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        answer = await it.client.get(f"{RESOLVE}/+911234567890")
        assert answer.status_code == 200
        found = answer.json()
        assert found["config_version"] == 1
        assert found["tenant"] == {"id": "demo", "name": "Demo", "timezone": "UTC"}
        assert found["phone_number"] == {"id": "demo", "e164": "+911234567890", "provider": "sip"}
        assert found["agent"]["name"] == "Front Desk"
        assert found["integrations"] == found["webhooks"] == []
        assert shape(found["logging"]["recording"]) == dict.fromkeys(
            ("enabled", "record_caller", "record_agent", "generate_stereo"), "bool"
        )
        for written in ("demo", "%2B911234567890", "911234567890", "+91%2012345%2067890"):
            again = await it.client.get(f"{RESOLVE}/{written}")
            assert again.json()["phone_number"]["id"] == "demo", written


# -- ETag ---------------------------------------------------------------------------------


async def test_what_is_known_already_is_not_sent_again(tmp_path: Path) -> None:
    quiet = {"agents": {"demo": {"versions": {"1": {"system_prompt": "Be brief."}}}}}
    async with gateway(tmp_path, {"runtime": quiet}) as it:
        first = await it.client.get(f"{RESOLVE}/demo")
        tag = first.headers["etag"]
        assert first.headers["cache-control"] == "private, no-cache"
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = await it.client.get(f"{RESOLVE}/demo", headers={"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b""), known
            assert again.headers["etag"] == tag
        other = await it.client.get(f"{RESOLVE}/demo", headers={"If-None-Match": '"other"'})
        assert (other.status_code, other.content) == (200, first.content)
        # Of a changed configuration it is another one.
        change = {"agents": {"demo": {"versions": {"1": {"system_prompt": "Be kind."}}}}}
        it.appliance.write_config({"runtime": change})
        assert (await it.client.post("/system/reload")).status_code == 200
        third = await it.client.get(f"{RESOLVE}/demo", headers={"If-None-Match": tag})
        assert third.status_code == 200
        assert third.json()["agent"]["system_prompt"] == "Be kind."


async def test_a_prompt_is_filled_in_with_the_call_that_comes(tmp_path: Path) -> None:
    asks = {"1": {"system_prompt": "{{ call.from_number }} by {{ call.provider }}"}}
    async with gateway(tmp_path, {"runtime": {"agents": {"demo": {"versions": asks}}}}) as it:
        query = {"from_number": "+4930123456", "provider": "plivo"}
        answer = await it.client.get(f"{RESOLVE}/demo", params=query)
        assert answer.json()["agent"]["system_prompt"] == "+4930123456 by plivo"


# -- refusals -----------------------------------------------------------------------------


async def test_without_a_token_it_is_401_with_an_empty_body(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        for token in (None, "a-wrong-one"):
            async with it.appliance.client(token=token) as client:
                for answer in (
                    await client.get(f"{RESOLVE}/demo"),
                    await client.get(BASE),
                    await client.post(f"{BASE}/start", content=START, headers=JSON),
                    await client.post("/internal/v1/erasures", json={"number": "+4930123456"}),
                    await client.get(f"{BASE}/x/stream"),
                ):
                    assert (answer.status_code, answer.content) == (401, b"")
                    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_each_scope_opens_its_part_alone(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        doors = {
            "runtime:ro": ("GET", f"{RESOLVE}/demo"),
            "calls:ro": ("GET", f"{BASE}/{call_id}"),
            "calls:rw": ("POST", f"{BASE}/{call_id}/events"),
            "privacy:ro": ("GET", "/internal/v1/erasures"),
        }
        for mine in doors:
            async with it.appliance.client(token=await make_token(it.client, mine)) as client:
                for scope, (method, path) in doors.items():
                    body: Any = {"events": []} if method == "POST" else None
                    answer = await client.request(method, path, json=body)
                    kind = mine.partition(":")[0]
                    if scope == mine or (mine.endswith(":rw") and scope == f"{kind}:ro"):
                        assert answer.status_code == 200, (mine, scope)
                    else:
                        is_actionable(answer, 403, "forbidden")


async def test_refusals_of_a_resolve_say_what_to_do(tmp_path: Path) -> None:
    runtime = {
        "phone_numbers": {"free": {"number": "+918012345679", "tenant": "demo"}},
        "agents": {"demo": {"published": None}},
    }
    async with gateway(tmp_path, {"runtime": runtime}) as it:
        for number, status, code, action in (
            ("+4930123456", 404, "phone_number_not_found", "add it to runtime.phone_numbers in"),
            ("free", 409, "agent_not_assigned", "set runtime.phone_numbers.free.agent"),
            ("demo", 409, "agent_not_published", "set runtime.agents.demo.published"),
        ):
            answer = await it.client.get(f"{RESOLVE}/{number}")
            error = is_actionable(answer, status, code, details=None)
            assert error["action"].startswith(action)


async def test_a_prompt_that_cannot_be_filled_in_is_our_fault(tmp_path: Path) -> None:
    asks = {"1": {"system_prompt": "{{ 1 / 0 }}"}}
    async with gateway(tmp_path, {"runtime": {"agents": {"demo": {"versions": asks}}}}) as it:
        error = is_actionable(await it.client.get(f"{RESOLVE}/demo"), 500, "prompt_failed")
        assert error["action"] == "mend runtime.agents.demo.versions.1.system_prompt"


async def test_secrets_of_tools_are_for_those_who_may_resolve(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text(TEXT.partition("\n")[2].replace("\n  ", "\n")[2:])
    config = {"runtime": {"include": str(tmp_path / "more.yaml")}}
    async with gateway(tmp_path, config) as it:
        found = (await it.client.get(f"{RESOLVE}/front")).json()
        assert found["integrations"][0]["auth"]["token"] == "t0k3n"
        assert found["webhooks"][0]["headers"] == {"x-api-key": "k3y"}
        for path in ("/system/config", "/system/tree"):
            text = (await it.client.get(path)).text
            assert "t0k3n" not in text
            assert "k3y" not in text


async def test_of_a_call_that_is_not_there_nothing_is_told_or_taken(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        for path in ("", "/events", "/timeline", "/transcript", "/stream"):
            answer = await it.client.get(f"{BASE}/nobody{path}")
            assert "call_id" in is_actionable(answer, 404, "not_found")["action"]
        is_actionable(await it.send("nobody", event(1)), 404, "not_found")
        is_actionable(await it.send("nobody"), 404, "not_found")
        is_actionable(await it.try_end("nobody"), 404, "not_found")
        bodies: dict[str, Any] = {"artifacts": {}, "timeline": {"timeline": {}}}
        for path, body in bodies.items():
            answer = await it.client.post(f"{BASE}/nobody/{path}", json=body)
            is_actionable(answer, 404, "not_found")


WRONG: list[tuple[str, Any, str]] = [
    ("start", {"provider": ""}, "provider"),
    ("start", {"provider": None}, "provider"),
    ("start", {"provider_call_id": "x" * 257}, "provider_call_id"),
    ("start", {"from_number": 5}, "from_number"),
    ("end", {"status": "over"}, "status"),
    ("end", {"status": "in_progress"}, "status"),
    ("end", {"duration_seconds": -1}, "duration_seconds"),
    ("end", {"duration_seconds": "long"}, "duration_seconds"),
]


async def refuse(it: Gateway, call_id: str, what: str, change: Any) -> Any:
    if what == "start":
        return await it.try_start(**change)
    return await it.try_end(call_id, **change)


async def test_a_field_that_is_wrong_is_named(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        for what, change, field in WRONG:
            answer = await refuse(it, call_id, what, change)
            assert field in is_actionable(answer, 422, "invalid")["message"], change
        for body in (b"", b"{", b"[]", b"null", b"\xff"):
            for path in ("start", f"{call_id}/events", f"{call_id}/end", f"{call_id}/artifacts"):
                answer = await it.client.post(f"{BASE}/{path}", content=body, headers=JSON)
                is_actionable(answer, 422, "invalid")
        assert (await it.call(call_id))["status"] == "in_progress"
