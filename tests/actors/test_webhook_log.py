"""An endpoint's place in the log: kept, bounded, told of gaps; and what becomes of old rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from actors.retention import _forget_events
from actors.webhook import actor, patience, reading, records
from actors.webhook.messages import Enable
from supervisor.database import restore
from supervisor.spec import Cause, StopReason
from supervisor.store import Store
from supervisor.transaction import Transaction
from tests.actors.webhooks import Office, office
from tests.receiver import Answer, Receiver, receiver, webhook

STOP = StopReason(Cause.BY_HAND, "test")


async def forget(desk: Office, keep: int) -> None:
    """Retention deletes all events but the newest."""
    first, _ = await desk.bench.store.write(_forget_events, "", keep, 10_000)
    desk.bench.log.forgotten(first)


def busy(tx: Transaction, count: int) -> None:
    for _ in range(count):
        tx.emit("noise.made", "noise/x", {})


def cursors(desk: Office) -> dict[str, int]:
    return dict(desk.bench.rows("SELECT name, seq FROM webhook_endpoints"))


# -- the cursor -----------------------------------------------------------------------------


async def test_what_happens_while_it_is_down_is_told_after(tmp_path: Path) -> None:
    async with receiver() as it:
        async with office(tmp_path, hook=webhook(it)) as desk:
            await desk.happens(number=1)
            await it.took(1)
        async with office(tmp_path) as desk:
            await desk.happens(number=2)
            assert (await desk.view()).state == "removed"
        async with office(tmp_path, hook=webhook(it)) as desk:
            await desk.happens(number=3)
            await it.took(3)
            assert [g.json["data"]["number"] for g in it.taken] == [1, 2, 3]
            assert desk.told("gap") == []


async def test_what_is_not_wanted_moves_the_cursor_without_a_write_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "KEEP_EVERY", 100)
    async with receiver() as it, office(tmp_path, hook=webhook(it)) as desk:
        await desk.happens()
        await it.took(1)
        await desk.viewed(lambda v: v.pending == 0)
        commands = desk.bench.store.commands
        for _ in range(20):
            await desk.bench.store.write(busy, 1)
        await desk.viewed(lambda v: v.behind == 0)
        assert desk.bench.store.commands == commands + 20
        assert cursors(desk) == {"hook": 1}
        await desk.bench.store.write(busy, 200)
        await desk.viewed(lambda v: v.behind == 0)
        assert cursors(desk)["hook"] >= 201
        await desk.bench.store.write(busy, 5)
        await desk.viewed(lambda v: v.behind == 0)
        await desk.child().restart(STOP)
        assert cursors(desk) == {"hook": 226}


async def test_a_cursor_in_memory_is_kept_before_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else retention would find a gap in what was looked at long ago."""
    monkeypatch.setattr(reading, "KEEP_WITHIN", 0.05)
    async with receiver() as it, office(tmp_path, hook=webhook(it)) as desk:
        await desk.bench.store.write(busy, 3)
        with trio.fail_after(10):
            while cursors(desk) != {"hook": 3}:
                await trio.sleep(0.01)
        # The row is seen before the store has counted it.
        await desk.bench.store.write(busy, 0)
        before = desk.bench.store.commands
        await trio.sleep(0.3)
        assert desk.bench.store.commands == before, "an idle endpoint writes nothing"


async def test_while_much_waits_the_log_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "MAX_PENDING", 20)
    async with receiver() as it, office(tmp_path, hook=webhook(it)) as desk:
        gate = trio.Event()
        it.answer = lambda _got: Answer(gate=gate)
        for number in range(100):
            await desk.happens(f"thing/{number % 10}", number=number)
        await it.requests(8)
        view = await desk.viewed(lambda v: v.pending >= 20)
        assert view.pending <= 20 + reading.STEP
        assert view.pending + view.behind == 100
        gate.set()
        await it.took(100)
        assert sorted(g.json["data"]["number"] for g in it.taken) == list(range(100))
        assert len(it.got) == 100


async def test_many_are_told_each_once(tmp_path: Path) -> None:
    def much(tx: Transaction, first: int) -> None:
        for number in range(first, first + 100):
            tx.emit("thing.happened", f"thing/{number % 50}", {"number": number})

    async with receiver() as it, office(tmp_path, hook=webhook(it, concurrency=32)) as desk:
        for first in range(0, 3000, 100):
            await desk.bench.store.write(much, first)
        with trio.fail_after(50):
            while len(it.taken) < 3000:
                await it.took(min(len(it.taken) + 200, 3000))
        assert sorted(g.json["data"]["number"] for g in it.taken) == list(range(3000))
        for number in range(50):
            assert it.of(f"thing/{number}") == sorted(it.of(f"thing/{number}"))
        await desk.viewed(lambda v: v.pending == 0)


# -- gaps -------------------------------------------------------------------------------------


async def test_what_retention_deletes_first_is_a_gap_that_is_told(tmp_path: Path) -> None:
    async with receiver() as it:
        async with office(tmp_path, hook=webhook(it, "thing", "webhook.gap")) as desk:
            await desk.happens(number=0)
            await it.took(1)
        async with office(tmp_path) as desk:
            for number in range(1, 11):
                await desk.happens(number=number)
            await forget(desk, 4)
        async with office(tmp_path, hook=webhook(it, "thing", "webhook.gap")) as desk:
            gap = await desk.event("gap")
            epoch = desk.bench.log.epoch
            assert gap == {
                "reason": "retention",
                "requested": f"{epoch}:1",
                "first": 8,
                "missed": 6,
            }
            await it.took(6)
            assert it.of("thing/a") == [1, 8, 9, 10, 11]
            # It is told itself, because it names this.
            assert [g.json["data"] for g in it.taken if g.subject == "webhook/hook"] == [gap]
        async with office(tmp_path, hook=webhook(it, "thing", "webhook.gap")) as desk:
            await desk.viewed(lambda v: v.behind == 0)
            assert desk.told("gap") == []


async def test_a_disabled_one_is_told_of_what_it_missed_too(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it)) as desk:
        it.answer = lambda _got: Answer(410)
        await desk.happens()
        await desk.event("disabled")
        for _ in range(10):
            await desk.happens()
        await forget(desk, 2)
        it.answer = lambda _got: Answer()
        await desk.router.ask(Enable("hook", "me"))
        assert (await desk.event("gap"))["reason"] == "retention"
        last = await desk.happens()
        await it.took(3)
        await it.until(lambda r: last in r.of("thing/a"))


async def test_a_restored_backup_goes_on_where_it_was_and_tells_of_the_gap(tmp_path: Path) -> None:
    """Nothing is told anew, and no id stands for two events."""
    async with receiver() as it:
        async with office(tmp_path, hook=webhook(it)) as desk:
            for number in range(3):
                await desk.happens(number=number)
            await it.took(3)
            first = desk.bench.log.epoch
            await desk.viewed(lambda v: v.pending == 0)
            desk.bench.database.backup(tmp_path / "copy")
            await desk.happens(number=3)
            await it.took(4)
        restore(tmp_path / "copy", tmp_path)
        async with office(tmp_path, hook=webhook(it)) as desk:
            second = desk.bench.log.epoch
            assert second != first
            assert await desk.event("gap") == {
                "reason": "epoch",
                "requested": f"{first}:3",
                "first": 4,
                "missed": None,
            }
            await desk.happens(number=4)
            await it.took(5)
            assert [g.json["data"]["number"] for g in it.taken] == [0, 1, 2, 3, 4]
            ids = [g.id for g in it.taken]
            assert ids[:4] == [f"msg_{first}_{seq}" for seq in (1, 2, 3, 4)]
            assert ids[4].startswith(f"msg_{second}_")
            assert it.taken[4].json["token"].startswith(second)


async def test_what_a_backup_had_not_told_yet_keeps_its_id_after_a_restore(tmp_path: Path) -> None:
    down = Receiver()
    async with office(tmp_path, hook=webhook(down, attempts=99), late=webhook(down)) as desk:
        first = desk.bench.log.epoch
        await desk.child("late").stop(StopReason(Cause.REMOVED, "so that it reads nothing"))
        await desk.happens()
        await desk.viewed(lambda v: v.last_error != "")
        desk.bench.database.backup(tmp_path / "copy")
        await desk.happens()
    restore(tmp_path / "copy", tmp_path)
    async with receiver(down.port) as it, receiver() as other:
        hooks = {"hook": webhook(it, attempts=99), "late": webhook(other)}
        async with office(tmp_path, **hooks) as desk:
            assert desk.bench.log.epoch != first
            assert [g.id for g in await it.took(1)] == [f"msg_{first}_1"]
            assert [g.id for g in await other.took(1)] == [f"msg_{first}_1"]


# -- the disk ---------------------------------------------------------------------------------


async def test_what_was_taken_is_not_sent_again_while_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "AGAIN", 0.05)
    async with receiver() as it, office(tmp_path, hook=webhook(it)) as desk:
        store: Store = desk.bench.store
        gate = trio.Event()
        it.answer = lambda _got: Answer(gate=gate)
        await desk.happens("thing/a")
        await it.requests(1)
        # As a disk that is read-only, until it is not.
        desk.bench.database.connection.execute("PRAGMA query_only = ON")
        gate.set()
        await it.took(1)
        with trio.fail_after(10):
            while store.failing is None:
                await trio.sleep(0.01)
        await trio.sleep(0.3)
        assert len(it.got) == 1
        desk.bench.database.connection.execute("PRAGMA query_only = OFF")
        await desk.viewed(lambda v: v.pending == 0)
        (done,) = await desk.deliveries()
        assert (done.state, done.attempts) == ("delivered", 1)
        assert len(it.got) == 1


# -- retention --------------------------------------------------------------------------------

LATER = "9999-01-01T00:00:00.000000Z"


async def test_what_is_over_is_forgotten_and_what_waits_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "DRAIN", 0.1)
    async with receiver() as it, office(tmp_path, hook=webhook(it, attempts=1)) as desk:
        it.answer = lambda got: Answer(500 if got.subject == "thing/dead" else 204)
        for number in range(5):
            await desk.happens(f"thing/{number}")
        await desk.happens("thing/dead")
        await desk.viewed(lambda v: (v.pending, v.dead) == (0, 1))
        it.answer = lambda _got: Answer(hang=True)
        await desk.happens("thing/waits")
        await it.requests(7)
        store = desk.bench.store
        assert await store.write(records.forget_old, "2020-01-01T00:00:00.000000Z", 100) == 0
        assert await store.write(records.forget_old, LATER, 4) == 4
        assert await store.write(records.forget_old, LATER, 4) == 2
        assert [d.subject for d in await desk.deliveries()] == ["thing/waits"]


async def test_a_dead_letter_that_retention_deleted_is_no_concern_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "COUNT_EVERY", 0.05)
    async with receiver() as it, office(tmp_path, hook=webhook(it, attempts=1)) as desk:
        it.answer = lambda _got: Answer(500)
        await desk.happens()
        await desk.event("dead_letter")
        with trio.fail_after(10):
            while not desk.services.board.problems():
                await trio.sleep(0.01)
            await desk.bench.store.write(records.forget_old, LATER, 100)
            while desk.services.board.problems():
                await trio.sleep(0.01)
        await desk.happens()
        with trio.fail_after(10):
            while not desk.services.board.problems():
                await trio.sleep(0.01)


async def test_an_endpoint_that_was_removed_is_forgotten_with_all_that_waits(
    tmp_path: Path,
) -> None:
    down = Receiver()
    async with office(tmp_path, gone=webhook(down), stays=webhook(down)) as desk:
        for number in range(6):
            await desk.happens(f"thing/{number}")
        await desk.viewed(lambda v: v.pending == 6, "gone")
        await desk.viewed(lambda v: v.pending == 6, "stays")
        await desk.apply(stays=webhook(down))
        assert (await desk.view("gone")).state == "removed"
        store = desk.bench.store
        assert await store.write(records.forget_old, "2020-01-01T00:00:00.000000Z", 4) == 0
        assert (await desk.view("gone")).pending == 6
        while await store.write(records.forget_old, LATER, 4) == 4:
            pass
        assert cursors(desk).keys() == {"stays"}
        assert {d.subject for d in await desk.deliveries("pending", "stays")} >= {"thing/5"}
        assert desk.bench.rows(
            "SELECT count(*) FROM webhook_deliveries WHERE endpoint = 'gone'"
        ) == [(0,)]


# -- a reload ---------------------------------------------------------------------------------


async def test_endpoints_come_change_and_go_and_the_others_are_not_touched(tmp_path: Path) -> None:
    async with receiver() as first, receiver() as second:
        hook = webhook(first)
        async with office(tmp_path, stays=hook) as desk:
            stays = desk.child("stays").service
            await desk.apply(stays=webhook(first), comes=webhook(second))
            await desk.happens(number=1)
            await first.took(1)
            await second.took(1)
            await desk.apply(stays=webhook(first), comes=webhook(second, body="data"))
            await desk.happens(number=2)
            await first.took(2)
            await second.took(2)
            assert second.taken[1].body == b'{"number":2}'
            await desk.apply(stays=webhook(first))
            await desk.happens(number=3)
            await first.took(3)
            assert len(second.got) == 2
            assert desk.child("stays").service is stays
            assert {g.connection for g in first.got} == {1}
            assert (await desk.view("comes")).state == "removed"
            assert (await desk.view("stays")).state == "active"


async def test_one_that_is_off_waits_and_then_goes_on_where_it_was(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it)) as desk:
        await desk.happens(number=1)
        await it.took(1)
        await desk.apply(hook=webhook(it, enabled=False))
        await desk.happens(number=2)
        assert (await desk.view()).state == "off"
        await desk.apply(hook=webhook(it))
        await it.took(2)
        assert [g.json["data"]["number"] for g in it.taken] == [1, 2]
