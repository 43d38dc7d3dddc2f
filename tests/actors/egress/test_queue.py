"""The queue: what is claimed when, in which order, and what becomes of it. Nothing is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.egress import records
from actors.egress.admission import SETTLED, Amount
from actors.egress.answers import VIEW_TIMEOUT
from actors.egress.finish import Made
from actors.egress.machine import Input
from actors.egress.messages import DeleteTask, ListTasks, Measured, SetSpotlight, ShowLarge
from actors.egress.request import Kind
from actors.egress.sweep import Sweeper
from config.model import Channel, Source
from supervisor.errors import Rejected
from tests.actors.egress.examples import NATIVE
from tests.actors.egress.kit import APP, SETTINGS, SOURCES, Hand, Yard, yard
from tests.supervisor.kit import Gate

STATE_FIELDS = {
    *("task_id", "request_id", "cmd", "action", "channel", "state", "message", "worker_id"),
    *("payload", "created_at", "processed_at", "completed_at", "retry_count", "timestamp"),
    # Beyond what DECISIONS.md lists.
    *("app_id", "reason"),
}


async def refused(code: str, ask: Any, *arguments: Any, **more: Any) -> str:
    """The message of a refusal."""
    with pytest.raises(Rejected) as error:
        await ask(*arguments, **more)
    assert error.value.code == code
    return error.value.message


# -- a task's way -----------------------------------------------------------------------


async def test_a_task_is_claimed_worked_on_and_over(tmp_path: Path, mock_clock: MockClock) -> None:
    async with yard(tmp_path, mock_clock) as it:
        kept = await it.submit(users=["user1"], access_token="s3kr1t", foo=5)
        assert kept.state == "ENQUEUED"
        assert int(kept.task_id, 16) >= 0
        assert kept.task_id == kept.task_id.lower()
        hand = await it.crew.at(0)
        assert hand.task.task_id == kept.task_id
        assert hand.task.kind is Kind.RECORD
        assert hand.task.payload["access_token"] == "s3kr1t"
        assert (hand.lease.kind, hand.lease.id, hand.lease.fence) == ("egress", kept.task_id, 1)
        await hand.end()
        await it.saw(kept.task_id, "enqueued", "processing", "stopped")
        view = await it.get(kept.task_id)
        assert (view.state, view.reason, view.action, view.error) == (
            "STOPPED",
            "completed",
            "start",
            "",
        )
        assert view.payload["foo"] == 5
        assert view.created_at <= str(view.processed_at) <= str(view.completed_at)
        assert (await it.capacity()).tasks == {"record": 0, "snapshot": 0, "page": 0, "tasks": 0}


async def test_the_events_of_states_have_the_fields_that_webhooks_have(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        payload = NATIVE["payload"]
        task_id = await it.start("m2d3k03l", **payload)
        hand = await it.crew.at(0)
        await it.stop(task_id)
        await it.saw(task_id, "enqueued", "processing", "stopping", "stopped")
        subject = f"egress/{task_id}"
        for kind in ("enqueued", "processing", "stopping", "stopped"):
            data = it.data(kind, subject)
            assert set(data) == STATE_FIELDS
            assert data["state"] == kind.upper()
            assert (data["task_id"], data["request_id"]) == (task_id, "m2d3k03l")
            assert data["payload"] == payload | {"access_token": "***", "files": []}
        assert it.data("enqueued", subject)["processed_at"] is None
        assert it.data("processing", subject)["worker_id"] == hand.task.worker_id != ""
        assert it.data("processing", subject)["action"] == "start"
        assert it.data("stopping", subject)["action"] == "stop"
        last = it.data("stopped", subject)
        assert (last["reason"], last["action"]) == ("user_stop", "stop")
        assert last["completed_at"] is not None
        everything = b"".join(bytes(e.data) for e in it.events)
        assert NATIVE["payload"]["access_token"].encode() not in everything


async def test_what_a_worker_cannot_do_has_failed_with_its_reason(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        await (await it.crew.at(0)).end(Input.FAIL, "disk_full")
        await it.saw(task_id, "enqueued", "processing", "failed")
        view = await it.get(task_id)
        assert (view.state, view.reason, view.error) == ("FAILED", "disk_full", "disk_full")


@pytest.mark.parametrize(
    ("code", "words", "payload"),
    [
        ("invalid", "payload.filename_pattern", {"filename_pattern": "../x"}),
        ("invalid", "payload.rtmp_dst", {"rtmp_dst": "http://x/y"}),
        ("invalid", "payload.url", {"layout": "freestyle", "url": "http://127.0.0.1/"}),
        ("not_configured", "'nobody'", {"users": ["nobody"]}),
        ("invalid", "spotlight", {"layout": "spotlight", "spotlight": "nobody"}),
    ],
)
async def test_what_could_not_be_done_is_not_kept(
    tmp_path: Path, mock_clock: MockClock, code: str, words: str, payload: dict[str, Any]
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        assert words in await refused(code, it.submit, **payload)
        assert it.events == []
        assert (await it.queue.ask(ListTasks(APP, 2**62, 10, None, None))).tasks == []


async def test_a_token_that_cannot_be_part_of_a_path_is_refused_at_once(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    known = {"*": Channel(users={"a": Source(url="file:/media/{access_token}/{workerUid}/x")})}
    async with yard(tmp_path, mock_clock, channels=known) as it:
        message = await refused("invalid", it.submit, access_token="../secret", workerUid=4)
        assert message.startswith("access_token: ")
        assert "secret" not in message
        await refused("invalid", it.submit, access_token="a", workerUid="a/b")
        await it.submit(access_token="a", workerUid=4)


# -- order and limits ---------------------------------------------------------------------


async def test_tasks_of_a_channel_are_worked_on_in_the_order_they_came(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        ids = [await it.start(f"r{n}") for n in range(5)]
        for n, task_id in enumerate(ids):
            hand = await it.crew.at(n)
            assert hand.task.task_id == task_id
            await it.settled()
            assert len(it.crew.hands) == n + 1
            await hand.end()


async def test_a_channel_has_one_task_of_each_command(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        record = await it.start("r1")
        again = await it.start("r2")
        elsewhere = await it.start("r3", "hall")
        # Nobody overtakes on a channel, also not what could go beside the first.
        snapshot = await it.start("r4", cmd="snapshot")
        await it.settled()
        assert {h.task.task_id for h in it.crew.hands} == {record, elsewhere}
        assert (await it.get(again)).waiting_for == "another record of the channel"
        assert (await it.get(snapshot)).waiting_for == "a task of the channel that came before"
        await it.crew.hands[0].end()
        await it.crew.until(lambda: len(it.crew.hands) == 4)
        assert {h.task.task_id for h in it.crew.hands[2:]} == {again, snapshot}
        assert (await it.get(again)).waiting_for == ""


async def test_a_record_and_a_snapshot_of_a_channel_go_together(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        await it.start("r1")
        await it.start("r2", cmd="snapshot")
        await it.crew.at(1)
        assert [h.task.kind for h in it.crew.hands] == [Kind.RECORD, Kind.SNAPSHOT]


async def test_pages_are_on_no_channel(tmp_path: Path, mock_clock: MockClock) -> None:
    async with yard(tmp_path, mock_clock) as it:
        for n in range(3):
            await it.start(f"r{n}", "", layout="freestyle", url="http://page.example/")
        await it.crew.at(2)


async def test_there_are_limits_for_each_kind_and_for_all(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    limits = {"record": 2, "snapshot": 1, "tasks": 3}
    async with yard(tmp_path, mock_clock, limits=limits) as it:
        for n in range(3):
            await it.start(f"r{n}", f"c{n}")
        for n in range(2):
            await it.start(f"s{n}", f"d{n}", cmd="snapshot")
        await it.settled()
        kinds = [h.task.cmd for h in it.crew.hands]
        assert sorted(kinds) == ["record", "record", "snapshot"]
        view = await it.capacity()
        assert view.tasks == {"record": 2, "snapshot": 1, "page": 0, "tasks": 3}
        assert view.waiting == 2
        it.change(limits={"record": 3, "snapshot": 2, "tasks": 5})
        await it.settled()
        assert len(it.crew.hands) == 5


async def test_no_more_may_wait_than_is_configured(tmp_path: Path, mock_clock: MockClock) -> None:
    async with yard(tmp_path, mock_clock, limits={"tasks": 0, "waiting": 3}) as it:
        codes: list[str] = []

        async def start(n: int) -> None:
            try:
                await it.start(f"r{n}", f"c{n}")
            except Rejected as error:
                codes.append(error.code)

        async with trio.open_nursery() as nursery:
            for n in range(8):
                nursery.start_soon(start, n)
        assert codes == ["too_many"] * 5
        assert (await it.capacity()).waiting == 3


async def test_a_repeat_of_what_was_taken_is_told_its_task_whatever_is_the_case_now(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock, limits={"tasks": 0, "waiting": 1}) as it:
        task_id = await it.start("r1", "a")
        await refused("too_many", it.start, "r2", "b")
        assert await it.start("r1", "a") == task_id
        # Its channel is configured no more.
        it.change(limits={"waiting": 9}, channels={"other": Channel(users=SOURCES)})
        await refused("not_configured", it.start, "r2", "b")
        assert await it.start("r1", "a") == task_id
        await refused("conflict", it.start, "r1", "b")
        assert (await it.capacity()).waiting == 1


# -- admission ----------------------------------------------------------------------------


async def test_only_what_fits_is_claimed_and_what_runs_is_left_alone(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock, capacity={"cpu": 1.0}) as it:
        ids = [await it.start(f"r{n}", f"c{n}") for n in range(3)]
        await it.settled()
        assert len(it.crew.hands) == 2
        assert (await it.get(ids[2])).waiting_for == "cpu"
        view = await it.capacity()
        assert (view.capacity.cpu, view.reserved.cpu, view.free.cpu) == (1.0, 1.0, 0.0)
        await it.crew.hands[1].end()
        assert (await it.crew.at(2)).task.task_id == ids[2]
        assert [h.asked_to_end for h in it.crew.hands] == [False] * 3
        assert it.crew.hands[0].stopped is None


async def test_a_reserve_is_corrected_by_what_is_measured(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock, capacity={"cpu": 1.0}) as it:
        ids = [await it.start(f"r{n}", f"c{n}") for n in range(2)]
        for number in range(SETTLED):
            # Each takes a fifth of what was expected: there is room for more.
            it.queue.tell(Measured({i: Amount(0.1, 100, 50) for i in ids}, 1e6))
            assert (await it.capacity()).reserved.cpu == (1.0 if number < SETTLED - 1 else 0.2)
        for n in range(2, 4):
            ids.append(await it.start(f"r{n}", f"c{n}"))
        await it.settled()
        assert len(it.crew.hands) == 3
        # And now more than there is: nobody is ended for it.
        it.queue.tell(Measured({ids[0]: Amount(3.0, 100, 50)}, 1e6))
        assert (await it.capacity()).free.cpu == 0.0
        await it.crew.hands[2].end()
        await it.settled()
        assert len(it.crew.hands) == 3
        assert (await it.get(ids[3])).waiting_for == "cpu"
        assert [h.stopped for h in it.crew.hands[:2]] == [None, None]


async def test_an_idle_machine_takes_what_is_larger_than_it(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock, capacity={"cpu": 0.1}) as it:
        await it.start()
        await it.crew.at(0)


async def test_a_disk_that_is_nearly_full_stops_claims_and_says_so(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        first = await it.start("r1", "a")
        hand = await it.crew.at(0)
        it.change(disk_free_mb=500.0)
        it.queue.tell(Measured({}, 499.0))
        await it.until(lambda: any(e.type == "egress.claims_stopped" for e in it.events))
        assert it.data("claims_stopped", "egress/queue") == {
            "reason": "less than 500 MiB of the disk are free",
            "disk_free_mb": 499.0,
        }
        second = await it.start("r2", "b")
        await it.settled()
        assert (await it.get(second)).waiting_for == "less than 500 MiB of the disk are free"
        view = await it.capacity()
        assert (view.claims_stopped, view.disk_free_mb) == (
            "less than 500 MiB of the disk are free",
            499.0,
        )
        # What runs goes on, and ends as it would.
        await hand.end()
        await it.saw(first, "enqueued", "processing", "stopped")
        it.queue.tell(Measured({}, 498.0))
        it.queue.tell(Measured({}, 501.0))
        assert (await it.crew.at(1)).task.task_id == second
        kinds = [e.type for e in it.events if e.subject == "egress/queue"]
        assert kinds == ["egress.claims_stopped", "egress.claims_resumed"]


# -- age ----------------------------------------------------------------------------------


async def test_what_nobody_claims_in_time_is_over(tmp_path: Path, mock_clock: MockClock) -> None:
    async with yard(tmp_path, mock_clock, limits={"tasks": 0}) as it:
        task_id = await it.start()
        it.pass_time(SETTINGS.claim_timeout - 2)
        await it.settled()
        assert it.told(task_id) == ["enqueued"]
        it.pass_time(2.1)
        await it.saw(task_id, "enqueued", "timeout")
        view = await it.get(task_id)
        assert (view.state, view.reason, view.error) == (
            "TIMEOUT",
            "not_claimed",
            "not claimed within 30 s",
        )
        it.change(limits={"tasks": 5})
        await it.settled()
        assert it.crew.hands == []
        assert (await it.stop(task_id)).over


async def test_what_was_begun_does_not_age(tmp_path: Path, mock_clock: MockClock) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        hand = await it.crew.at(0)
        # More than any disk has: it is measured meanwhile.
        it.change(disk_free_mb=1e15)
        it.queue.tell(Measured({}, 1.0))
        hand.crash()
        await it.lost(hand)
        assert it.told(task_id) == ["enqueued", "processing", "enqueued"]
        for _ in range(3):
            it.pass_time(SETTINGS.claim_timeout)
            await it.settled()
        it.change(disk_free_mb=0.0)
        it.queue.tell(Measured({}, 1000.0))
        assert (await it.crew.at(1)).task.task_id == task_id
        assert it.told(task_id) == ["enqueued", "processing", "enqueued", "processing"]


# -- a stop ---------------------------------------------------------------------------------


async def test_a_stop_before_the_claim_is_over_at_once(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock, limits={"tasks": 0}) as it:
        task_id = await it.start()
        taken = await it.stop(task_id)
        # It had not ended when it was asked for: `enqueued` is what the contract answers.
        assert (taken.over, taken.state) == (False, "STOPPED")
        await it.saw(task_id, "enqueued", "stopped")
        data = it.data("stopped", f"egress/{task_id}")
        assert (data["reason"], data["action"]) == ("user_stop", "stop")
        assert data["message"] == "stopped before it was claimed"
        it.change(limits={"tasks": 5})
        await it.settled()
        assert it.crew.hands == []
        again = await it.stop(task_id)
        assert (again.over, again.state) == (True, "STOPPED")
        assert it.told(task_id) == ["enqueued", "stopped"]


async def test_a_stop_twice_is_a_stop(tmp_path: Path, mock_clock: MockClock) -> None:
    async with yard(tmp_path, mock_clock) as it:
        it.crew.obedient = False
        task_id = await it.start()
        hand = await it.crew.at(0)
        for _ in range(2):
            taken = await it.stop(task_id)
            assert (taken.over, taken.state) == (False, "STOPPING")
            await it.crew.until(lambda: hand.asked_to_end)
        assert (await it.get(task_id)).state == "STOPPING"
        await hand.end()
        await it.saw(task_id, "enqueued", "processing", "stopping", "stopped")
        assert (await it.get(task_id)).reason == "user_stop"


async def test_a_stop_of_what_there_is_not(tmp_path: Path, mock_clock: MockClock) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        await refused("not_found", it.stop, "0123456789abcdef")
        await refused("not_found", it.stop, task_id, "another")
        await refused("not_found", it.get, task_id, "another")
        assert it.told(task_id)[-1] != "stopping"


async def test_a_stop_during_the_claim_reaches_the_worker(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """Both are in one transaction. Who hears of it first is chance, so there are many."""
    async with yard(tmp_path, mock_clock, limits={"tasks": 0}) as it:
        ids = [await it.start(f"r{n}", f"c{n}") for n in range(30)]
        gate = Gate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.bench.store.write, gate)
            await gate.entered.wait()
            it.change(limits={"tasks": 100, "record": 100})
            it.look()
            await _waits(it, 1)  # the claim
            for task_id in ids:
                nursery.start_soon(it.stop, task_id)
            await _waits(it, 1 + len(ids))
            gate.open()
        for task_id in ids:
            await it.saw(task_id, "enqueued", "processing", "stopping", "stopped")


async def _waits(it: Yard, count: int) -> None:
    with trio.fail_after(20):
        while it.bench.store.waiting < count:
            await trio.sleep(0.005)


# -- many at once ---------------------------------------------------------------------------


async def test_two_hundred_starts_at_once(tmp_path: Path, mock_clock: MockClock) -> None:
    """Each is kept, none is lost or worked on twice, and never more at once than may be."""
    async with yard(tmp_path, mock_clock, limits={"record": 7}) as it:
        most = 0

        def at_once(hand: Hand) -> None:
            nonlocal most
            most = max(most, sum(1 for h in it.crew.hands if not h.over.is_set()))
            hand.spawn(hand.end)

        it.crew.on_start = at_once
        ids: list[str] = []

        async def start(n: int) -> None:
            ids.append(await it.start(f"r{n}", f"c{n % 50}"))

        async with trio.open_nursery() as nursery:
            for n in range(200):
                nursery.start_soon(start, n)
        assert len(set(ids)) == 200
        await it.until(lambda: sum(e.type == "egress.stopped" for e in it.events) == 200)
        for task_id in ids:
            assert it.told(task_id) == ["enqueued", "processing", "stopped"]
        assert sorted(h.task.task_id for h in it.crew.hands) == sorted(ids)
        assert 1 < most <= 7
        # In each channel in the order they came: a task's number is that of its first event.
        for channel in {h.task.channel for h in it.crew.hands}:
            numbers = [h.task.number for h in it.crew.hands if h.task.channel == channel]
            assert numbers == sorted(numbers)


async def test_the_same_request_twice_at_once_is_one_task(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        ids: list[str] = []

        async def start() -> None:
            ids.append(await it.start("same"))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(start)
        assert len(ids) == 10
        assert len(set(ids)) == 1
        await it.settled()
        assert len(it.crew.hands) == 1
        message = await refused("conflict", it.submit, "same", "another")
        assert "'same'" in message
        # Another app's request of the same id is another.
        assert await it.start("same", "hall", app="app2") not in ids


async def test_a_request_is_remembered_for_some_time_after_its_end(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start("same")
        await (await it.crew.at(0)).end()
        assert await it.start("same") == task_id
        await refused("conflict", it.submit, "same", "another")
        it.remembered = 0.0
        assert await it.start("same", "another") != task_id


# -- looking at it ----------------------------------------------------------------------------


async def test_a_list_goes_by_pages_the_newest_first(tmp_path: Path, mock_clock: MockClock) -> None:
    async with yard(tmp_path, mock_clock, limits={"record": 2}) as it:
        ids = [await it.start(f"r{n}", f"c{n % 2}") for n in range(5)]
        await it.start("x", app="another")
        await it.settled()
        seen: list[str] = []
        before = 2**62
        while True:
            page = await it.queue.ask(ListTasks(APP, before, 2, None, None))
            seen += [view.task_id for view in page.tasks]
            if page.next is None:
                break
            assert len(page.tasks) == 2
            before = page.next
        assert seen == ids[::-1]

        async def found(state: str | None, channel: str | None) -> list[str]:
            page = await it.queue.ask(ListTasks(APP, 2**62, 10, state, channel))
            return [view.task_id for view in page.tasks]

        assert await found(None, "c1") == [ids[3], ids[1]]
        assert await found("PROCESSING", None) == [ids[1], ids[0]]
        assert await found("ENQUEUED", "c0") == [ids[4], ids[2]]
        assert await found("FAILED", None) == []


async def test_a_list_shows_a_few_files_of_each_and_how_many_there_are(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start(cmd="snapshot")
        made = [Made(f"{n:03}.jpg", "jpg", "", 10, 0.0) for n in range(60)]
        await (await it.crew.at(0)).end(Input.DONE, "", *made)
        await it.settled()
        (view,) = (await it.queue.ask(ListTasks(APP, 2**62, 10, None, None))).tasks
        assert [file.name for file in view.files] == [file.name for file in made[: records.FEW]]
        assert view.file_count == 60
        whole = await it.get(task_id)
        assert (len(whole.files), whole.file_count) == (60, 60)


async def test_a_worker_tells_how_far_it_is(tmp_path: Path, mock_clock: MockClock) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        hand = await it.crew.at(0)
        view = await it.get(task_id)
        assert view.progress is not None
        assert (view.progress.frames, view.away) == (7, ["user2"])
        # A worker that ends, and does not answer: what its row says is enough.
        hand.may_stop = trio.Event()
        hand.stop_soon()
        await it.crew.until(lambda: hand.stopped is not None)
        views = []

        async def get() -> None:
            views.append(await it.get(task_id))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(get)
            with trio.fail_after(20):
                while not hand.mailbox.depth:
                    await trio.sleep(0.005)
            mock_clock.jump(VIEW_TIMEOUT)
        assert (views[0].state, views[0].progress) == ("PROCESSING", None)


async def test_another_user_is_made_the_large_one(tmp_path: Path, mock_clock: MockClock) -> None:
    async with yard(tmp_path, mock_clock) as it:
        flat = await it.start("r1", "a")
        task_id = await it.start("r2", "b", layout="spotlight", users=["user1", "user2"])
        hand = await it.crew.at(1)

        async def show(task_id: str, user: str) -> None:
            await it.queue.ask(SetSpotlight(APP, task_id, user))

        await show(task_id, "user2")
        await it.crew.until(lambda: ShowLarge("user2") in hand.told)
        assert it.data("spotlight", f"egress/{task_id}") == {"user": "user2"}
        assert "user3" in await refused("invalid", show, task_id, "user3")
        assert "flat" in await refused("conflict", show, flat, "user1")
        await refused("not_found", show, "0" * 16, "user1")
        # Whoever works on it next begins with that one.
        hand.crash()
        await it.lost(hand)
        assert (await it.crew.at(2)).task.spotlight == "user2"
        await it.crew.hands[2].end()
        await it.until(lambda: it.told(task_id)[-1] == "stopped")
        await refused("conflict", show, task_id, "user1")


async def test_what_is_deleted_is_gone_with_its_files(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        hand = await it.crew.at(0)
        file = it.services.task_folder(task_id).files / "x.mp4"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")

        async def delete(task_id: str, app: str = APP) -> None:
            await it.queue.ask(DeleteTask(app, task_id))

        await refused("conflict", delete, task_id)
        await hand.end()
        await refused("not_found", delete, task_id, "another")
        assert file.exists()
        await delete(task_id)
        assert not it.services.task_folder(task_id).root.exists()
        assert it.events[-1].type == "egress.deleted"
        await refused("not_found", it.get, task_id)
        await refused("not_found", delete, task_id)
        assert it.bench.rows("SELECT * FROM leases") == []
        # Its request is forgotten with it.
        assert await it.start() != task_id


async def test_folders_of_no_task_are_swept_and_no_others(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """What retention has forgotten, and what a kill left between a row's end and its folder's."""
    async with yard(tmp_path, mock_clock) as it:
        old, new = await it.start("r1", "a"), await it.start("r2", "b")
        await (await it.crew.at(0)).end()
        await (await it.crew.at(1)).end()
        await it.settled()
        folder = tmp_path / "egress"
        stranger = folder / "lost+found"
        names = (old, new, f"{7:016x}", stranger.name)
        for name in names:
            (folder / name / "files").mkdir(parents=True)
        sweep = Sweeper(it.bench.store, folder, it.services.registry)
        await sweep()
        assert sorted(p.name for p in folder.iterdir()) == sorted({old, new, stranger.name})
        ended: dict[str, str] = dict(
            it.bench.rows("SELECT task_id, completed_at FROM egress_tasks")
        )
        assert await it.bench.store.write(records.forget_old, ended[new], 500) == 1
        await sweep()
        assert sorted(p.name for p in folder.iterdir()) == sorted({new, stranger.name})


async def test_parts_of_what_is_whole_are_swept_and_those_of_what_is_not_are_kept(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """As after a kill between the end of a task and its tidying up."""
    async with yard(tmp_path, mock_clock) as it:
        whole, live, failed = [await it.start(f"r{n}", f"c{n}") for n in range(3)]
        await it.crew.at(2)
        hands = {hand.task.task_id: hand for hand in it.crew.hands}
        mp4, hls = Made("a/x.mp4", "mp4", "", 9, 1.0), Made("a/x.m3u8", "hls", "", 9, 1.0)
        await hands[whole].end(Input.DONE, "", mp4)
        await hands[live].end(Input.DONE, "", mp4, hls)
        await hands[failed].end(Input.FAIL, "not_finished", mp4)
        working = await it.start("r3", "c3")
        await it.settled()
        for task_id in (whole, live, failed, working):
            folder = it.services.task_folder(task_id)
            (folder.files / "a" / "x.segments" / "0001").mkdir(parents=True)
            folder.run.mkdir()
        await Sweeper(it.bench.store, tmp_path / "egress", it.services.registry)()

        def left(task_id: str) -> tuple[bool, bool]:
            folder = it.services.task_folder(task_id)
            return (folder.files / "a" / "x.segments").exists(), folder.run.exists()

        assert left(whole) == (False, False)
        assert left(live) == (True, False)
        assert left(failed) == left(working) == (True, True)


async def test_a_sweep_of_no_folder(tmp_path: Path, mock_clock: MockClock) -> None:
    async with yard(tmp_path, mock_clock) as it:
        await Sweeper(it.bench.store, tmp_path / "none", it.services.registry)()
        assert not (tmp_path / "none").exists()
