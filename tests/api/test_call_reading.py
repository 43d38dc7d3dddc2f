"""What can be read of calls: lists, transcripts, timelines, artifacts, rejections, streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import trio

from tests.actors.call.stories import at
from tests.api.calls import BASE, CALLER, Gateway, event, gateway, is_actionable, says
from tests.api.raw import raw, request

REJECTIONS = "/internal/v1/runtime/rejections"


# -- lists --------------------------------------------------------------------------------


async def ids(it: Gateway, **query: Any) -> list[str]:
    return [c["call_id"] for c in (await it.get("calls", **query))["calls"]]


async def test_calls_are_listed_by_what_they_are(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        talked = await it.start(provider_call_id="a")
        await it.tell(talked, says(1, "agent", "hello"), says(2, "caller", "hi"))
        await it.end(talked)
        other = await it.start(from_number="+49 30 999 999 99", started_at=at(60_000))
        await it.end(other, 90_000, status="failed")
        foreign = await it.start(
            phone_number_id="x", to_number="+918099999999", started_at=at(120_000)
        )
        await it.until(talked, lambda c: c["outcome"] == "completed")
        for query, wanted in (
            ({}, [foreign, other, talked]),
            ({"status": "in_progress"}, [foreign]),
            ({"status": "ended"}, [talked]),
            ({"tenant_id": "demo"}, [other, talked]),
            ({"phone_number_id": "x"}, [foreign]),
            ({"number": "+493099999999"}, [other]),
            ({"number": "+49 (30) 9999-9999"}, [other]),
            ({"number": "+918099999999"}, [foreign]),
            ({"number": CALLER, "status": "ended"}, [talked]),
            ({"provider_call_id": "a"}, [talked]),
            ({"since": at(60_000)}, [foreign, other]),
            ({"until": at(60_000)}, [talked]),
            ({"since": at(1), "until": at(120_000)}, [other]),
            ({"since": "2025-12-31T11:01:00.000000+01:00"}, [foreign, other]),
            ({"outcome": "nothing of the kind"}, []),
        ):
            assert await ids(it, **query) == wanted, query
        with trio.fail_after(10):
            while await ids(it, outcome="completed") != [talked]:
                await trio.sleep(0.02)
        for wrong in ("status=over", "since=today", "limit=0", "limit=501"):
            is_actionable(await it.client.get(f"{BASE}?{wrong}"), 422, "invalid")


async def test_a_list_is_read_a_page_at_a_time(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        started = [await it.start() for _ in range(7)]
        found: list[str] = []
        query: dict[str, Any] = {"limit": 3}
        while True:
            page = await it.get("calls", **query)
            assert len(page["calls"]) <= 3
            found += [c["call_id"] for c in page["calls"]]
            # What begins meanwhile is not in the way.
            await it.start()
            if page["next"] is None:
                break
            query["before"] = page["next"]
        assert found == started[::-1]


# -- what was said -------------------------------------------------------------------------


async def test_a_transcript_is_text_or_lines_of_json(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        await it.tell(call_id, says(65_000, "CALLER", "hi, Jürgen"), says(1000, "AGENT", "hello"))
        answer = await it.client.get(f"{BASE}/{call_id}/transcript")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.text == "[00:00:01] Agent: hello\n[00:01:05] Caller: hi, Jürgen\n"
        answer = await it.client.get(f"{BASE}/{call_id}/transcript", params={"format": "jsonl"})
        assert answer.headers["content-type"] == "application/jsonl"
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert [line["text"] for line in lines] == ["hello", "hi, Jürgen"]
        bad = await it.client.get(f"{BASE}/{call_id}/transcript", params={"format": "pdf"})
        is_actionable(bad, 422, "invalid")


async def test_a_timeline_is_computed_until_one_is_sent(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        await it.tell(call_id, says(1000, "AGENT", "hello"), says(4000, "CALLER", "hi"))
        found = await it.get(f"calls/{call_id}/timeline")
        assert (found["call_id"], found["source"]) == (call_id, "computed")
        assert found["timeline"]["origin"] == {"ts": at(0), "type": "call_start"}
        assert found["timeline"]["silences"] == [{"start_ms": 1000, "end_ms": 4000}]
        sent = {
            "version": 1,
            "duration_ms": 5000,
            "generated_at": at(6000),
            "origin": {"ts": at(0), "type": "stream_start"},
            "utterances": [
                {"speaker": "AGENT", "start_ms": 10.5, "text": "hello", "event_indexes": [0]}
            ],
            "speaker_segments": [{"speaker": "AGENT", "start_ms": 10, "energy_avg": 0.5}],
            "tool_calls": [{"name": "search", "status": "ok", "start_ms": 1, "args": {"q": [1]}}],
            "markers": [
                {"type": "barge_in", "offset_ms": 5, "payload": {"by": "caller"}},
                {"kind": "hold", "offset_ms": 7},
            ],
        }
        for _again in range(2):
            answer = await it.client.post(f"{BASE}/{call_id}/timeline", json={"timeline": sent})
            assert (answer.status_code, answer.json()) == (200, {"call_id": call_id})
        found = await it.get(f"calls/{call_id}/timeline")
        assert found["source"] == "gateway"
        drawn = found["timeline"]
        assert drawn["generated_at"] == at(6000)
        assert drawn["utterances"][0]["text"] == "hello"
        assert drawn["tool_calls"][0]["args"] == {"q": [1]}
        assert [(m["type"], m["payload"]) for m in drawn["markers"]] == [
            ("barge_in", {"by": "caller"}),
            ("hold", None),
        ]
        # Another one takes its place, also after the end.
        await it.end(call_id)
        body = {"timeline": {"duration_ms": 1}}
        assert (await it.client.post(f"{BASE}/{call_id}/timeline", json=body)).status_code == 200
        assert (await it.get(f"calls/{call_id}/timeline"))["timeline"]["utterances"] == []
        for wrong in ({}, {"timeline": {"utterances": [{"speaker": "a"}]}}, {"timeline": 5}):
            answer = await it.client.post(f"{BASE}/{call_id}/timeline", json=wrong)
            is_actionable(answer, 422, "invalid")


async def test_artifacts_are_added_to_and_their_addresses_stay_out_of_the_log(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()

        async def add(body: Any) -> int:
            answer = await it.client.post(f"{BASE}/{call_id}/artifacts", json=body)
            return answer.status_code

        secret = "https://bucket/x?signature=s3kr1t"
        assert await add({"recording": {"stereo_url": secret, "caller_url": None}}) == 200
        assert await add({"recording": {"agent_url": "b"}, "transcript": None}) == 200
        assert await add({"transcript": {"text_url": "c"}}) == 200
        assert await add({}) == 200
        assert (await it.call(call_id))["artifacts"] == {
            "recording": {"stereo_url": secret, "agent_url": "b"},
            "transcript": {"text_url": "c"},
        }
        assert await add({"recording": {f"u{i}": "x" for i in range(65)}}) == 422
        assert await add({"recording": {"url": "x" * 4097}}) == 422
        assert await add({"recording": ["x"]}) == 422
        told = [e for e in await stream(it, call_id, 4) if e["type"] == "call.artifacts"]
        assert len(told) == 3
        assert "s3kr1t" not in json.dumps(told)


# -- calls that were not taken --------------------------------------------------------------


async def test_rejections_are_kept_once_and_listed(tmp_path: Path) -> None:
    body = {
        "provider": "plivo",
        "provider_call_id": "p1",
        "phone_number": "+911234567890",
        "from_number": "+49 30 1234567",
        "occurred_at": at(0),
        "error": {"code": "agent_not_published", "message": "m", "retryable": False},
    }
    async with gateway(tmp_path) as it:
        first = (await it.client.post(REJECTIONS, json=body)).json()
        assert first["status"] == "ok"
        assert (await it.client.post(REJECTIONS, json=body)).json() == first
        plain = {"error": {"code": "phone_number_not_found"}, "endpoint_address": "+918099999999"}
        second = (await it.client.post(REJECTIONS, json=plain)).json()
        both = await it.get("runtime/rejections")
        assert [r["number"] for r in both["rejections"]] == [second["id"], first["id"]]
        assert both["next"] is None
        one = both["rejections"][1]
        assert (one["tenant_id"], one["caller"]) == ("demo", "+49301234567")
        assert one["body"]["error"]["message"] == "m"
        assert (await it.get("runtime/rejections", tenant_id="demo"))["rejections"] == [one]
        found = await it.get("runtime/rejections", code="phone_number_not_found")
        assert [r["phone_number"] for r in found["rejections"]] == ["+918099999999"]
        page = await it.get("runtime/rejections", limit=1)
        again = await it.get("runtime/rejections", limit=1, before=page["next"])
        assert again["rejections"] == [one]
        # Without a time or a call's id nothing says that it is the same again.
        third = (await it.client.post(REJECTIONS, json=plain)).json()
        assert third["id"] not in (first["id"], second["id"])
        bad: list[Any] = [{}, {"error": {}}, {"error": {"code": ""}}]
        for wrong in (*bad, {**body, "occurred_at": "now"}):
            is_actionable(await it.client.post(REJECTIONS, json=wrong), 422, "invalid")


# -- streams --------------------------------------------------------------------------------


async def stream(it: Gateway, call_id: str, count: int) -> list[dict[str, Any]]:
    """The first so many events of a call's stream."""
    async with raw(it.appliance) as connection:
        await connection.send(request(it.appliance, "GET", f"{BASE}/{call_id}/stream"))
        assert (await connection.head()).status == 200
        assert (await connection.sent()).kind == "hello"
        return [(await connection.sent()).data for _ in range(count)]


async def test_a_call_is_streamed_from_its_start_and_then_live(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id, other = await it.start(), await it.start()
        await it.tell(call_id, event(1, n=1), event(2, n=2))
        await it.tell(other, event(1, n=9))
        async with raw(it.appliance) as sse, it.appliance.ws(f"topics=call/{call_id}") as ws:
            await sse.send(request(it.appliance, "GET", f"{BASE}/{call_id}/stream"))
            head = await sse.head()
            assert head.headers["content-type"] == "text/event-stream"
            hello = await sse.sent()
            assert (hello.kind, hello.data["topics"]) == ("hello", [f"call/{call_id}"])
            started, two = await sse.sent(), await sse.sent()
            assert (started.kind, started.data["subject"]) == ("call.started", f"call/{call_id}")
            assert [e["payload"]["n"] for e in two.data["data"]["events"]] == [1, 2]
            # From here on live, in both ways.
            assert json.loads(await ws.get_message())["type"] == "hello"
            await it.tell(other, event(2, n=9))
            await it.tell(call_id, event(3, n=3))
            await it.end(call_id)
            for kind in ("call.events", "call.ended", "call.summed_up"):
                live = await sse.sent()
                assert live.kind == kind
                assert json.loads(await ws.get_message()) == live.data
            assert started.id is not None
            # From where one was cut off.
            headers = {"Last-Event-ID": started.id}
        async with raw(it.appliance) as again:
            path = f"{BASE}/{call_id}/stream"
            await again.send(request(it.appliance, "GET", path, headers=headers))
            await again.head()
            assert (await again.sent()).kind == "hello"
            assert await again.sent() == two


async def test_a_large_batch_is_told_in_pieces(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        await it.tell(call_id, *(event(i, n=i) for i in range(250)))
        await it.tell(call_id, *(event(1000 + i, text="x" * 40_000) for i in range(3)))
        found = [e["data"]["events"] for e in await stream(it, call_id, 7) if "events" in e["data"]]
        assert [len(some) for some in found] == [100, 100, 50, 1, 1, 1]
        assert [e["payload"]["n"] for some in found[:3] for e in some] == list(range(250))


async def test_a_reload_that_removes_the_number_leaves_its_live_call_alone(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        gone = {
            "tenants": {"demo": None},
            "agents": {"demo": None},
            "phone_numbers": {"demo": None},
        }
        it.appliance.write_config({"runtime": gone})
        assert (await it.client.post("/system/reload")).status_code == 200
        answer = await it.client.get("/internal/v1/runtime/phone_numbers/demo")
        is_actionable(answer, 404, "phone_number_not_found")
        await it.tell(call_id, event(1))
        await it.end(call_id)
        found = await it.call(call_id)
        assert (found["status"], found["tenant_id"], found["events"]) == ("ended", "demo", 1)
        # Another call to it is taken too: whoever reports it has answered it.
        assert (await it.call(await it.start()))["tenant_id"] == ""
