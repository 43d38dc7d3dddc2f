"""Erasing one caller's data, and forgetting calls that have been kept for long enough."""

from __future__ import annotations

import datetime
import json
import secrets
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import trio

from actors.call import linked
from supervisor.event import timestamp
from supervisor.transaction import Transaction
from tests.actors.call.stories import at
from tests.api.calls import BASE, CALLER, OURS, Gateway, event, gateway, is_actionable, says
from tests.api.kit import make_token
from tests.api.raw import raw, request
from tests.receiver import receiver, webhook

ERASURES = "/internal/v1/erasures"
REJECTIONS = "/internal/v1/runtime/rejections"
OTHER = "+493087654321"
ERASED = {"erased": True}
DIGITS = CALLER.removeprefix("+")
SECRET_WORDS = "the garden gnome is mine"


async def erase(it: Gateway, number: str = CALLER) -> dict[str, Any]:
    answer = await it.client.post(ERASURES, json={"number": number})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def log(it: Gateway) -> list[dict[str, Any]]:
    """The whole log, as it is served now: from memory where it is there."""
    head = int((await it.client.get("/version")).json()["head"].rpartition(":")[2])
    found: list[dict[str, Any]] = []
    async with raw(it.appliance) as connection:
        await connection.send(request(it.appliance, "GET", "/events?since=0"))
        await connection.head()
        while not found or found[-1]["seq"] < head:
            sent = await connection.sent()
            if "seq" in sent.data:
                found.append(sent.data)
    return found


def tables(it: Gateway) -> dict[str, str]:
    """All that is in the database, by table."""
    file = it.appliance.board.store.database.path
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as db:
        names = [
            name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        found = {name: repr(db.execute(f"SELECT * FROM [{name}]").fetchall()) for name in names}
    db.close()
    return found


def mentions(it: Gateway, text: str) -> list[str]:
    """The tables that a text is in."""
    return [name for name, rows in tables(it).items() if text in rows]


async def recording(
    it: Gateway, gw_id: str, name: str = "call-1.wav", when: str | None = None
) -> Path:
    """One that a gateway of this appliance made, with its transcript."""
    folder = it.appliance.folder / "recordings" / gw_id / "s1"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(b"sound")
    path.with_suffix(".txt").write_text("words")
    row = (str(path), gw_id, "s1", 5.0, 5, "done", when or at(30_000))

    def keep(tx: Transaction) -> None:
        tx.execute(
            "INSERT INTO recordings (path, gw_id, session, seconds, size, transcript, created)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            row,
        )

    await it.appliance.board.store.write(keep)
    return path


# -- erasure --------------------------------------------------------------------------------


async def test_all_that_there_is_of_a_caller_is_erased_and_nothing_else(tmp_path: Path) -> None:
    async with (
        receiver() as hooks,
        gateway(
            tmp_path, {"webhooks": {"hook": webhook(hooks, "call", "rejection", attempts=1000)}}
        ) as it,
    ):
        over = await it.start(provider_stream_id="gw1")
        await it.tell(over, says(1000, "caller", SECRET_WORDS), event(2000, who=CALLER))
        await it.end(over)
        live = await it.start(from_number="+49 30 1234-5678")
        await it.tell(live, event(1, n=1))
        called = await it.start(from_number=OTHER, to_number=CALLER)
        kept = await it.start(from_number=OTHER, provider_stream_id="gw2")
        await it.tell(kept, event(1, n=1))
        await it.end(kept)
        file, other = await recording(it, "gw1"), await recording(it, "gw2")
        for number in ("+49 30 1234 5678", OTHER):
            body = {"from_number": number, "error": {"code": "agent_not_published"}}
            assert (await it.client.post(REJECTIONS, json=body)).status_code == 200
        assert [f["name"] for f in (await it.call(over))["files"]] == ["call-1.wav", "call-1.txt"]
        assert "calls" in mentions(it, DIGITS)

        done = await erase(it)
        counts = {"calls": 3, "events": 3, "rejections": 1, "files": 1}
        assert {name: done[name] for name in counts} == counts

        # Nothing is left of it: not in any table, not in the log, not on the disk.
        assert mentions(it, DIGITS) == []
        assert mentions(it, "1234 5678") == mentions(it, "1234-5678") == []
        assert mentions(it, SECRET_WORDS) == []
        text = json.dumps(await log(it))
        assert DIGITS not in text
        assert "1234 5678" not in text
        assert SECRET_WORDS not in text
        assert not file.exists()
        assert not file.parent.exists()
        for call_id in (over, live, called):
            is_actionable(await it.client.get(f"{BASE}/{call_id}"), 404, "not_found")
            is_actionable(await it.send(call_id, event(9)), 404, "not_found")
            told = [e["data"] for e in await log(it) if e["subject"] == f"call/{call_id}"]
            assert told
            assert told == [ERASED] * len(told)
        # The other caller's is as it was.
        found = await it.call(kept)
        assert (found["from_number"], found["events"]) == (OTHER, 1)
        assert [f["name"] for f in found["files"]] == ["call-1.wav", "call-1.txt"]
        assert other.exists()
        assert [r["caller"] for r in (await it.get("runtime/rejections"))["rejections"]] == [OTHER]
        # The log has no holes.
        seqs = [e["seq"] for e in await log(it)]
        assert seqs == list(range(1, len(seqs) + 1))


async def task(it: Gateway, channel: str, state: str) -> tuple[str, Path]:
    """An egress task of this appliance, and its folder."""
    task_id = secrets.token_hex(8)
    folder = it.appliance.folder / "egress" / task_id
    folder.mkdir(parents=True)
    (folder / "room.mp4").write_bytes(b"pictures")

    def keep(tx: Transaction) -> None:
        columns = [row[1] for row in tx.all("PRAGMA table_info(egress_tasks)")]
        known: dict[str, Any] = {
            "task_id": task_id,
            "app_id": "app",
            "channel": channel,
            "state": state,
        }
        known |= {"cmd": "record", "kind": "record", "payload": "{}", "shown": "{}"}
        over = at(5000) if state in ("STOPPED", "FAILED") else None
        known |= {"created_at": at(0), "completed_at": over}
        values = [known.get(name, 0) for name in columns]
        marks = ", ".join("?" * len(columns))
        tx.execute(f"INSERT INTO egress_tasks VALUES ({marks})", values)
        tx.execute(
            "INSERT INTO egress_files VALUES (?, 'room.mp4', 'mp4', '', 8, 5, 'kept', 'local', ?)",
            (task_id, at(0)),
        )

    await it.appliance.board.store.write(keep)
    return task_id, folder


async def test_egress_tasks_of_a_call_go_with_it(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start(provider_call_id="room-7")
        mine, folder = await task(it, "room-7", "STOPPED")
        _, other = await task(it, call_id, "FAILED")
        _, foreign = await task(it, "room-8", "STOPPED")
        files = (await it.call(call_id))["files"]
        assert [(f["source"], f["name"]) for f in files] == [("egress", "room.mp4")] * 2
        assert f"/egress/v1/app/tasks/{mine}/files/room.mp4" in {f["href"] for f in files}
        assert (await erase(it))["files"] == 2
        assert not folder.exists()
        assert not other.exists()
        assert foreign.exists()


async def test_tasks_of_another_time_on_the_channel_are_left_alone(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        _, folder = await task(it, "room-7", "STOPPED")
        call_id = await it.start(provider_call_id="room-7", started_at=at(600_000))
        assert (await it.call(call_id))["files"] == []
        assert (await erase(it))["files"] == 0
        assert folder.exists()


async def test_a_longer_number_is_another_one(tmp_path: Path) -> None:
    """And one without its `+` is the same."""
    async with gateway(tmp_path) as it:
        await it.start(from_number=DIGITS)
        longer = await it.start(provider_call_id="longer", from_number=f"{CALLER}89")
        await it.send(longer, event(1, text=f"this is {CALLER}89"), event(2, text=f"not {CALLER}"))
        assert (await erase(it))["calls"] == 1
        kept = (await it.get(f"calls/{longer}/events"))["events"]
        assert [e["payload"].get("erased", False) for e in kept] == [False, True]
        refused = await it.client.post(ERASURES, json={"number": OURS.removeprefix("+")})
        is_actionable(refused, 409, "conflict")


async def test_nothing_is_erased_while_something_still_records_it(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start(provider_call_id="room-7")
        working, folder = await task(it, "room-7", "PROCESSING")
        answer = await it.client.post(ERASURES, json={"number": CALLER})
        is_actionable(answer, 409, "conflict")
        assert working in answer.json()["error"]["message"]
        assert folder.exists()
        # The call goes on as if nobody had asked.
        await it.send(call_id, event(1))
        assert (await it.call(call_id))["status"] == "in_progress"


async def test_what_others_said_of_the_number_goes_too(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        await it.start()
        other = await it.start(provider_call_id="of another", from_number="+4930999999")
        await it.send(other, event(1, text=f"call {CALLER} back"), event(2, text="bye"))
        await erase(it)
        kept = (await it.get(f"calls/{other}/events"))["events"]
        assert [e["payload"].get("erased", False) for e in kept] == [True, False]


async def test_that_it_was_done_is_kept_and_not_whose(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        await it.start()
        token = await make_token(it.client, "privacy:rw", named="officer")
        async with it.appliance.client(token=token) as officer:
            first = (await officer.post(ERASURES, json={"number": CALLER})).json()
        # Of one of whom there is nothing it is done too.
        second = await erase(it)
        assert second["calls"] == 0
        found = (await it.get("erasures"))["erasures"]
        assert [e["calls"] for e in found] == [0, 1]
        assert found[1]["by"] == "officer"
        assert found[1]["erased_at"] == first["erased_at"]
        assert DIGITS not in json.dumps(found)
        page = await it.get("erasures", limit=1)
        assert (await it.get("erasures", limit=1, before=page["next"]))["erasures"] == found[1:]
        told = [e["data"] for e in await log(it) if e["type"] == "privacy.erased"]
        assert [data["calls"] for data in told] == [1, 0]


async def test_a_number_of_a_tenant_is_no_callers(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        for number in (OURS, "+91 12345 67890"):
            answer = await it.client.post(ERASURES, json={"number": number})
            error = is_actionable(answer, 409, "conflict")
            assert error["action"] == "erase by the number of a caller"
        assert (await it.call(call_id))["from_number"] == CALLER
        for wrong in ({}, {"number": ""}, {"number": "1"}, {"number": 5}):
            is_actionable(await it.client.post(ERASURES, json=wrong), 422, "invalid")


@pytest.mark.parametrize("number", ["%%%", "___", "+%%%%%%%%", "cal", "202", "12345"])
async def test_what_is_asked_for_is_no_pattern(tmp_path: Path, number: str) -> None:
    async with gateway(tmp_path) as it:
        call_id = await it.start()
        await it.tell(call_id, event(1, text="calls of 2025: 12345%%%"))
        before = await log(it)
        assert (await erase(it, number))["calls"] == 0
        assert [e["data"] for e in await log(it)][: len(before)] == [e["data"] for e in before]
        assert len(await it.events(call_id)) == 1


async def test_what_else_of_the_log_has_the_number_in_it_goes_too(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        peers: dict[str, Any] = {
            f"sip:{DIGITS}@host": ERASED,
            "sip:bob@host": None,
            f"+{DIGITS}": ERASED,
        }

        def ring(tx: Transaction) -> None:
            for peer in peers:
                tx.emit("gateway.call_ringing", "gateway/gw1", {"peer": peer})

        await it.appliance.board.store.write(ring)
        await erase(it)
        told = [e["data"] for e in await log(it) if e["type"] == "gateway.call_ringing"]
        assert told == [data or {"peer": peer} for peer, data in peers.items()]
        assert mentions(it, DIGITS) == []


async def test_one_with_a_short_number_is_erased_by_it_alone(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        mine, longer = await it.start(from_number="1001"), await it.start(from_number="10012")
        assert (await erase(it, "1001"))["calls"] == 1
        is_actionable(await it.client.get(f"{BASE}/{mine}"), 404, "not_found")
        assert (await it.call(longer))["from_number"] == "10012"
        told = [e["data"] for e in await log(it) if e["subject"] == f"call/{longer}"]
        assert told[0]["from_number"] == "10012"


async def test_what_webhooks_were_to_tell_of_it_is_not_told(tmp_path: Path) -> None:
    async with receiver() as hooks:
        gone = hooks.url
    config = {"webhooks": {"hook": webhook(gone, "call", attempts=1000)}}
    async with gateway(tmp_path, config) as it:
        await it.start()
        with trio.fail_after(20):
            while "webhook_deliveries" not in mentions(it, DIGITS):
                await trio.sleep(0.02)
        await erase(it)
        assert mentions(it, DIGITS) == []


# -- retention --------------------------------------------------------------------------------


async def aged(it: Gateway, call_id: str, days: float) -> None:
    """A call that ended so many days ago."""
    when = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)

    def change(tx: Transaction) -> None:
        tx.execute("UPDATE calls SET closed_at = ? WHERE call_id = ?", (timestamp(when), call_id))

    await it.appliance.board.store.write(change)


TENANTS = {
    "tenants": {
        "demo": {"logging": {"retention_days": 7}},
        "long": {"name": "Long", "logging": {"retention_days": 0}},
    },
    "phone_numbers": {"long": {"number": "+918012345678", "tenant": "long"}},
}


async def test_each_tenants_calls_are_kept_for_as_long_as_it_says(tmp_path: Path) -> None:
    config = {"runtime": TENANTS, "calls": {"retention_days": 3}}
    async with gateway(tmp_path, config) as it:
        ages = {"demo": (6, 8), "long": (1, 9999), "nobody": (2, 4)}
        calls: dict[tuple[str, float], str] = {}
        for number, days in ages.items():
            for age in days:
                call_id = await it.start(
                    phone_number_id=number, to_number="", provider_stream_id=f"{number}{age}"
                )
                await it.tell(call_id, event(1, text=SECRET_WORDS))
                await it.end(call_id)
                await aged(it, call_id, age)
                calls[number, age] = call_id
        live = await it.start(started_at="2001-01-01T00:00:00.000000Z")
        gone_file = await recording(it, "demo8")
        kept_file = await recording(it, "demo6")

        await it.appliance.board._keeper().once()

        left = {c["call_id"] for c in (await it.get("calls"))["calls"]}
        gone = {calls["demo", 8], calls["nobody", 4]}
        assert left == {*calls.values(), live} - gone
        assert not gone_file.exists()
        assert not gone_file.with_suffix(".txt").exists()
        assert kept_file.exists()
        for call_id in gone:
            told = [e["data"] for e in await log(it) if e["subject"] == f"call/{call_id}"]
            assert told == [ERASED] * len(told)
            is_actionable(await it.client.get(f"{BASE}/{call_id}"), 404, "not_found")
        assert len(await it.events(calls["demo", 6])) == 1


async def test_many_are_forgotten_in_small_steps(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        for _ in range(45):
            await it.end(await it.start())
        old = timestamp(datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=31))
        await it.appliance.board.store.write(
            lambda tx: tx.execute("UPDATE calls SET closed_at = ?", (old,))
        )
        kept = await it.start()
        await it.appliance.board._keeper().once()
        assert [c["call_id"] for c in (await it.get("calls"))["calls"]] == [kept]


async def test_a_recording_belongs_to_the_call_in_whose_time_it_was_made(tmp_path: Path) -> None:
    async with gateway(tmp_path) as it:
        first = await it.start(provider_stream_id="gw1")
        await it.end(first, 60_000)
        second = await it.start(provider_stream_id="gw1", started_at=at(120_000))
        await it.end(second, 180_000)
        await recording(it, "gw1", "call-1.wav", at(60_000))
        await recording(it, "gw1", "call-2.wav", at(180_000))
        await recording(it, "gw2", "call-3.wav", at(60_000))
        for call_id, name in ((first, "call-1"), (second, "call-2")):
            files = (await it.call(call_id))["files"]
            assert [f["name"] for f in files] == [f"{name}.wav", f"{name}.txt"]
            assert {(f["source"], f["of"]) for f in files} == {("gateway", "gw1")}
    assert datetime.timedelta(seconds=60) > linked.SLACK
