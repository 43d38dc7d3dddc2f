"""Calls as voice gateways report them: again, out of order, late, wrong, and never ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from actors.call import router
from tests.actors.call.stories import at
from tests.actors.call.test_stamp import WRONG
from tests.api.calls import BASE, Gateway, event, gateway, is_actionable, says


async def each(it: Gateway, call_id: str) -> list[Any]:
    """The payload's `n` of a call's events, as they are read."""
    return [e["payload"].get("n") for e in await it.events(call_id)]


# -- start --------------------------------------------------------------------------------


async def test_the_same_start_is_the_same_call_and_another_body_is_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start(provider_call_id="a")
        assert await it.start(provider_call_id="a") == call_id
        assert await it.start(provider_call_id="a", provider="other") != call_id
        again = await it.try_start(provider_call_id="a", from_number="+4930999999")
        error = is_actionable(again, 409, "conflict")
        assert error["action"] == "give each call a provider_call_id of its own"
        # Also when it is over.
        await it.end(call_id)
        assert await it.start(provider_call_id="a") == call_id
        assert (await it.call(call_id))["status"] == "ended"


async def test_the_same_start_at_once_is_one_call(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        ids: set[str] = set()

        async def start() -> None:
            ids.add(await it.start(provider_call_id="a"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(start)
        assert len(ids) == 1
        assert len((await it.get("calls"))["calls"]) == 1


async def test_a_call_is_of_the_tenant_of_its_number(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        for more in ({}, {"phone_number_id": ""}, {"phone_number_id": "x"}):
            found = await it.call(await it.start(**more))
            assert (found["tenant_id"], found["agent_id"]) == ("demo", "demo"), more
            assert found["agent_version"] == 1
            assert found["phone_number_id"] == more.get("phone_number_id", "demo") or "demo"
        # It goes on whatever the configuration has of its number.
        found = await it.call(await it.start(phone_number_id="", to_number="+918099999999"))
        assert (found["tenant_id"], found["agent_id"], found["agent_version"]) == ("", "", None)
        assert found["status"] == "in_progress"


async def test_there_are_only_so_many_live_calls(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"calls": {"live": 2}}) as it:
        first = await it.start()
        await it.start()
        refused = await it.try_start()
        is_actionable(refused, 503, "too_many")
        assert refused.headers["retry-after"] == "1"
        await it.end(first)
        await it.start()


# -- events -------------------------------------------------------------------------------


async def test_a_batch_with_one_bad_event_leaves_nothing(tmp_path: Path) -> None:
    bad: list[tuple[Any, str]] = [
        ({"ts": at(5)}, "type"),
        ({"type": "x"}, "ts"),
        ({"ts": at(5), "type": ""}, "type"),
        ({"ts": at(5), "type": "x" * 129}, "type"),
        ({"ts": at(5), "type": "x", "payload": []}, "payload"),
        ({"ts": at(5), "type": "x", "idempotency_key": ""}, "idempotency_key"),
        ({"ts": "2026-02-30T08:00:01.000000Z", "type": "x"}, "ts"),
        ("x", "events"),
        (None, "events"),
    ]
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        for one, field in bad:
            for many in (3, 300):
                events = [event(i, n=i) for i in range(many)]
                answer = await it.send(call_id, *events[:2], one, *events[2:])
                error = is_actionable(answer, 422, "invalid")
                assert field in error["message"], one
                assert "events[2]" in error["message"] or "events[...]" in error["message"]
        assert await it.events(call_id) == []
        assert (await it.call(call_id))["events"] == 0


async def test_ten_thousand_events_in_one_batch(tmp_path: Path) -> None:
    count = 10_000
    async with gateway(tmp_path, {"calls": {"batch_events": count}}) as it:
        call_id = await it.start()
        events = [event(i, n=i) for i in range(count)]
        too_many = await it.send(call_id, *events, event(count, n=count))
        error = is_actionable(too_many, 422, "invalid")
        assert error["action"] == "send them in parts"
        await it.tell(call_id, *events)
        await it.tell(call_id, *events)
        assert (await it.call(call_id))["events"] == count
        found = await it.events(call_id, limit=count)
        assert [e["payload"]["n"] for e in found] == list(range(count))
        assert sorted(e["place"] for e in found) == list(range(1, count + 1))


async def test_a_batch_that_is_too_large_is_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"calls": {"batch_bytes": 1000}}) as it:
        call_id = await it.start()
        is_actionable(await it.send(call_id, event(1, text="x" * 1000)), 413, "too_large")
        await it.tell(call_id, event(1, text="x" * 500))


async def test_the_same_events_again_are_kept_once(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        await it.tell(call_id, event(1, n=1), event(2, n=2), event(1, n=1))
        # Again in part, in another order, and written in another way.
        again = {"type": "note", "payload": {"n": 2}, "ts": "2025-12-31T11:00:00.002000+01:00"}
        await it.tell(call_id, event(3, n=3), again)
        assert await each(it, call_id) == [1, 2, 3]
        # What differs in anything is another one.
        await it.tell(call_id, event(1, n=1.5), event(1.5, n=1), event(1, "other", n=1))
        assert len(await it.events(call_id)) == 6
        assert (await it.call(call_id))["events"] == 6
        # The same in another call is of that call.
        other = await it.start()
        await it.tell(other, event(1, n=1))
        assert await each(it, other) == [1]


async def test_the_order_of_keys_does_not_make_another_event(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        await it.tell(call_id, event(1, a=1, b={"c": 2, "d": 3}))
        await it.tell(call_id, event(1, b={"d": 3, "c": 2}, a=1))
        assert len(await it.events(call_id)) == 1


async def test_no_payload_is_an_empty_one(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        bare = {"ts": at(1), "type": "x"}
        await it.tell(call_id, bare, {**bare, "payload": None}, {**bare, "payload": {}})
        (found,) = await it.events(call_id)
        assert found["payload"] == {}


async def test_a_payload_that_is_nested_too_deep_is_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"limits": {"json_depth": 20}}) as it:
        call_id = await it.start()
        for depth, status in ((15, 200), (25, 422), (500, 422), (100_000, 422)):
            for many in (1, 300):
                nested = '{{"n":{}1{}}}'.format("[" * depth, "]" * depth)
                event = '{"ts":"%s","type":"x","payload":%s}'
                last = event % (at(many), nested)
                events = ",".join([event % (at(i), "{}") for i in range(many - 1)] + [last])
                answer = await it.client.post(
                    f"{BASE}/{call_id}/events", content=f'{{"events":[{events}]}}'
                )
                assert answer.status_code == status, (depth, many, answer.text)
        assert (await it.call(call_id))["events"] == 301


async def test_an_idempotency_key_counts_before_what_an_event_says(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        await it.tell(call_id, event(1, key="a", n=1), event(1, key="b", n=1))
        await it.tell(call_id, event(9, "other", key="a", n=9), event(1, n=1))
        assert await each(it, call_id) == [1, 1, 1]
        other = await it.start()
        await it.tell(other, event(2, key="a", n=2))
        assert await each(it, other) == [2]


async def test_events_out_of_order_are_read_in_the_order_of_their_times(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        await it.tell(call_id, event(500, n=5), event(100, n=1))
        await it.tell(call_id, event(-100, n=0), event(300, n=3), event(300, n=3.5))
        await it.tell(call_id, event(200, n=2))
        assert await each(it, call_id) == [0, 1, 2, 3, 3.5, 5]
        places = [e["place"] for e in await it.events(call_id)]
        assert sorted(places) == [1, 2, 3, 4, 5, 6]


async def test_events_are_read_a_page_at_a_time(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        # Many of one time, so that a page ends between them.
        await it.tell(call_id, *(event(i // 4, n=i) for i in range(25)))
        found, after = [], ""
        while True:
            page = await it.get(f"calls/{call_id}/events", after=after, limit=3)
            assert len(page["events"]) <= 3
            found += [e["payload"]["n"] for e in page["events"]]
            after = page["next"]
            if after is None:
                break
        assert found == list(range(25))
        for wrong in ("x", "5", f"{at(0)}", f"{at(0)}/x", f"{at(0)}/1\n", "/"):
            answer = await it.client.get(f"{BASE}/{call_id}/events", params={"after": wrong})
            is_actionable(answer, 422, "invalid")


async def test_a_timestamp_of_any_wrong_shape_names_its_field(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        texts: list[Any] = [*WRONG, None, 5, 1767254401.0, True, [], {}]
        for text in texts:
            for answer, field in (
                (await it.try_start(started_at=text), "started_at"),
                (await it.send(call_id, {"ts": text, "type": "x"}), "ts"),
                (await it.try_end(call_id, ended_at=text), "ended_at"),
            ):
                assert field in is_actionable(answer, 422, "invalid")["message"], text
        assert len((await it.get("calls"))["calls"]) == 1
        assert (await it.call(call_id))["status"] == "in_progress"
        assert await it.events(call_id) == []


# -- the end ------------------------------------------------------------------------------


async def test_an_end_before_the_start_is_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        error = is_actionable(
            await it.try_end(call_id, -1), 422, "invalid", details={"field": "ended_at"}
        )
        assert "before the start" in error["message"]
        assert error["action"] == "check the clock of the voice gateway"
        assert (await it.call(call_id))["status"] == "in_progress"
        # One that never was answered ends when it begins.
        await it.end(call_id, 0, status="cancelled")
        assert (await it.call(call_id))["duration_computed"] == 0


async def test_what_is_said_of_the_duration_is_compared(tmp_path: Path) -> None:
    said_and_differs = [(None, False), (60, False), (61.9, False), (62.1, True), (0, True)]
    async with gateway(tmp_path) as it:
        for said, differs in said_and_differs:
            call_id = await it.start()
            await it.end(call_id, 60_000, duration_seconds=said)
            found = await it.call(call_id)
            assert (found["duration_seconds"], found["duration_computed"]) == (said, 60)
            assert found["duration_differs"] is differs


async def test_the_same_end_again_is_answered_and_another_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        await it.end(call_id, duration_seconds=60)
        await it.end(call_id, duration_seconds=60)
        for more in ({}, {"status": "failed"}, {"when": 61_000}):
            answer = await it.try_end(call_id, **more)
            error = is_actionable(answer, 409, "conflict")
            assert "ended" in error["message"]
        assert (await it.call(call_id))["duration_seconds"] == 60


async def end_at(it: Gateway, call_id: str, when: float, statuses: list[int]) -> None:
    statuses.append((await it.try_end(call_id, when)).status_code)


async def test_of_two_ends_at_once_one_counts(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        for different in (False, True):
            call_id = await it.start()
            statuses: list[int] = []

            async with trio.open_nursery() as nursery:
                for number in range(8):
                    when = 60_000 + (number if different else 0)
                    nursery.start_soon(end_at, it, call_id, when, statuses)
            assert sorted(statuses) == ([200, *[409] * 7] if different else [200] * 8)
            assert (await it.call(call_id))["status"] == "ended"


async def test_events_come_after_the_end_for_a_while(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        await it.tell(call_id, says(100, "AGENT", "hello"))
        await it.end(call_id)
        before = await it.until(call_id, lambda c: c["outcome"] != "")
        assert before["outcome"] == "caller_silent"
        await it.tell(call_id, says(200, "CALLER", "hi"))
        found = await it.call(call_id)
        assert (found["events"], found["outcome"]) == (2, "completed")
        assert found["summary"]["utterances"] == 2
        # And in the list, when it is summed up again.
        async with it.appliance.ws(f"since=0&topics=call/{call_id}") as ws:
            with trio.fail_after(20):
                while '"outcome":"completed"' not in await ws.get_message():
                    continue
        listed = await it.get("calls", outcome="completed")
        assert [c["call_id"] for c in listed["calls"]] == [call_id]


async def test_later_than_that_they_are_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"calls": {"late": 0}}) as it:
        call_id = await it.start()
        await it.tell(call_id, event(1))
        await it.end(call_id)
        with trio.fail_after(10):
            # Later than nought seconds: not in the same millisecond.
            while (answer := await it.send(call_id, event(2))).status_code == 200:
                continue
        error = is_actionable(answer, 409, "conflict")
        assert "calls.late" in error["action"]
        # The same end is answered all the same, and what is found out late is taken.
        await it.end(call_id)
        body = {"recording": {"stereo_url": "https://x"}}
        answer = await it.client.post(f"{BASE}/{call_id}/artifacts", json=body)
        assert answer.status_code == 200


# -- nobody says anything ----------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of which nobody says anything are looked for all the time."""
    monkeypatch.setattr(router, "LOOK_EVERY", 0.02)


IDLE = {"calls": {"idle_timeout": 1.5}}


async def test_a_call_of_which_nobody_says_anything_fails(tmp_path: Path, quick: None) -> None:
    async with gateway(tmp_path, IDLE) as it:
        call_id = await it.start()
        await it.tell(call_id, event(7000))
        silent = await it.start()
        for one, seconds in ((call_id, 7), (silent, 0)):
            found = await it.until(one, lambda c: c["status"] != "in_progress")
            assert (found["status"], found["reason"]) == ("failed", "no event for too long")
            assert found["ended_at"] == at(seconds * 1000)
            assert (found["duration_seconds"], found["duration_computed"]) == (None, seconds)


async def test_one_that_is_spoken_of_goes_on(tmp_path: Path, quick: None) -> None:
    async with gateway(tmp_path, IDLE) as it:
        spoken, silent = await it.start(), await it.start()
        count = 0
        while (await it.call(silent))["status"] == "in_progress":
            count += 1
            await it.tell(spoken, event(count))
        assert (await it.call(spoken))["status"] == "in_progress"


async def test_what_the_gateway_says_in_the_end_is_truer(tmp_path: Path, quick: None) -> None:
    async with gateway(tmp_path, IDLE) as it:
        call_id = await it.start()
        await it.until(call_id, lambda c: c["status"] == "failed")
        await it.tell(call_id, event(5000))
        await it.end(call_id, 90_000, duration_seconds=90)
        found = await it.call(call_id)
        assert (found["status"], found["reason"]) == ("ended", "")
        assert (found["ended_at"], found["duration_computed"]) == (at(90_000), 90)
        is_actionable(await it.try_end(call_id, 91_000), 409, "conflict")


async def test_a_large_batch_with_some_that_were_there_holds_up_nobody(tmp_path: Path) -> None:
    """What is new of it is found without a look at each of the others for each."""
    count = 5_000
    async with gateway(tmp_path, {"calls": {"batch_events": 2 * count}}) as it:
        call_id = await it.start()
        events = [event(i, n=i) for i in range(count)]
        await it.tell(call_id, *events[:10])
        await it.tell(call_id, *events, *events[-10:])
        found = await it.events(call_id, limit=2 * count)
        assert [e["payload"]["n"] for e in found] == list(range(count))
        assert sorted(e["place"] for e in found) == list(range(1, count + 1))
