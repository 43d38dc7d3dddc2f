"""What becomes of tasks when workers, the queue, the disk or the appliance fail them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors import lease as leases
from actors.egress import made_records, records, upload_records
from actors.egress.finish import Made
from actors.egress.machine import Input, State
from actors.egress.messages import ListTasks, Measured, WorkerEnded
from actors.lease import Lease, LeaseLost
from supervisor.errors import ActorDown, StoreUnavailable
from supervisor.spec import Cause
from supervisor.transaction import Transaction
from tests.actors.egress.kit import APP, SETTINGS, Hand, Yard, yard

FILE = Made("x.mp4", "mp4", "", 100, 2.0)


# -- a worker ---------------------------------------------------------------------------


async def test_a_worker_that_crashes_is_replaced_so_often_and_no_more(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        for n in range(SETTINGS.retries + 1):
            hand = await it.crew.at(n)
            assert (hand.lease.fence, hand.task.retry_count) == (n + 1, n)
            hand.crash()
            await it.lost(hand)
        await it.saw(task_id, *["enqueued", "processing"] * (SETTINGS.retries + 1), "failed")
        view = await it.get(task_id)
        assert (view.state, view.reason, view.retry_count) == ("FAILED", "retries_exhausted", 3)
        assert view.error == "its worker ended"
        await it.settled()
        assert len(it.crew.hands) == 4
        assert (await it.capacity()).tasks["tasks"] == 0


async def test_what_was_lost_is_told_as_enqueued_again(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        first = await it.crew.at(0)
        it.change(limits={"record": 0})
        processed = it.data("processing", f"egress/{task_id}")["processed_at"]
        it.queue.tell(Measured({}, -1.0))
        first.crash()
        await it.lost(first)
        data = it.data("enqueued", f"egress/{task_id}")
        assert (data["retry_count"], data["message"]) == (1, "its worker ended")
        assert (data["completed_at"], data["processed_at"]) == (None, processed)


async def test_a_worker_that_is_lost_while_it_stops_is_replaced_to_finish(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        it.crew.obedient = False
        task_id = await it.start()
        first = await it.crew.at(0)
        await it.stop(task_id)
        first.crash()
        await it.lost(first)
        second = await it.crew.at(1)
        assert second.task.state is State.STOPPING
        await second.end()
        await it.saw(task_id, "enqueued", "processing", "stopping", "stopped")
        assert (await it.get(task_id)).reason == "user_stop"


async def test_retries_that_were_made_up_for_are_forgotten(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        for n in range(2 * SETTINGS.retries):
            hand = await it.crew.at(n)
            await it.bench.store.write(records.healthy, hand.lease)
            hand.crash()
            await it.lost(hand)
        assert (await it.get(task_id)).retry_count == 1


async def test_what_waits_for_its_channel_goes_on_when_the_first_has_failed(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        await it.start("r1")
        second = await it.start("r2")
        for n in range(SETTINGS.retries + 1):
            hand = await it.crew.at(n)
            assert hand.task.request_id == "r1"
            hand.crash()
            await it.lost(hand)
        assert (await it.crew.at(4)).task.task_id == second


# -- a lease ----------------------------------------------------------------------------


RESULTS: dict[str, Callable[[Transaction, Lease, float], Any]] = {
    "result": lambda tx, lease, now: records.end(tx, lease, Input.DONE, "", "", [FILE]),
    "failure": lambda tx, lease, now: records.end(tx, lease, Input.FAIL, "x", "", []),
    "new part": lambda tx, lease, now: made_records.begin_part(tx, lease),
    "end of a part": lambda tx, lease, now: made_records.end_part(tx, lease, 1, 2.0, "asked"),
    "health": lambda tx, lease, now: records.healthy(tx, lease),
    "upload": lambda tx, lease, now: upload_records.enqueue(tx, lease, [("x", "x")], 0),
    "renewal": lambda tx, lease, now: leases.renew(tx, lease, now, 45.0),
}


async def test_a_worker_whose_lease_ran_out_is_refused_and_the_new_ones_result_is_taken(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        first = await it.crew.at(0)
        # It does not renew, and goes on.
        it.pass_time(SETTINGS.lease + 1)
        second = await it.crew.at(1)
        assert first.stopped is not None
        assert first.stopped.cause is Cause.REMOVED
        assert (second.lease.fence, second.task.retry_count) == (2, 1)
        for name, write in RESULTS.items():
            now = it.services.clock.now()
            with pytest.raises(LeaseLost):
                await it.bench.store.write(write, first.lease, now)
            assert it.told(task_id)[-1] == "processing", name
        assert (await it.get(task_id)).files == []
        await second.end(Input.DONE, "", FILE)
        await it.saw(task_id, "enqueued", "processing", "enqueued", "processing", "stopped")
        assert [file.name for file in (await it.get(task_id)).files] == ["x.mp4"]


async def test_a_lease_that_is_renewed_is_kept(tmp_path: Path, mock_clock: MockClock) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        hand = await it.crew.at(0)
        for _ in range(6):
            it.pass_time(SETTINGS.renew)
            now = it.services.clock.now()
            await it.bench.store.write(leases.renew, hand.lease, now, SETTINGS.lease)
            await it.settled()
        assert it.crew.hands == [hand]
        assert it.told(task_id) == ["enqueued", "processing"]


async def test_nobody_begins_before_the_last_worker_has_ended(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """Its lease is over, and it still holds files and pipes of the task."""
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        first = await it.crew.at(0)
        first.may_stop = trio.Event()
        it.pass_time(SETTINGS.lease + 1)
        await it.crew.until(lambda: first.stopped is not None)
        await it.settled()
        assert it.crew.hands == [first]
        assert (await it.get(task_id)).waiting_for == "its last worker is still ending"
        first.may_stop.set()
        await it.lost(first)
        assert (await it.crew.at(1)).lease.fence == 2


async def test_a_late_end_does_not_close_the_task_of_the_next_worker(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        await it.crew.at(0)
        it.pass_time(SETTINGS.lease + 1)
        second = await it.crew.at(1)
        it.queue.tell(WorkerEnded(task_id, 1, "STOPPED"))
        await it.settled()
        assert (await it.capacity()).tasks["record"] == 1
        await second.end()
        await it.settled()
        assert (await it.capacity()).tasks["record"] == 0


# -- the queue ----------------------------------------------------------------------------


async def test_a_queue_that_crashes_goes_on_with_those_who_work(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock, limits={"record": 2}) as it:
        ids = [await it.start(f"r{n}", f"c{n}") for n in range(3)]
        first, second = await it.crew.at(0), await it.crew.at(1)
        await it.crash_queue()
        # One ends while there is no queue to tell.
        await it.bench.store.write(records.end, first.lease, Input.DONE, "", "", [])
        first.stop_soon()
        await it.back()
        await it.crew.at(2)
        await it.settled()
        assert [h.task.task_id for h in it.crew.hands] == ids
        assert (await it.capacity()).tasks["record"] == 2
        assert (await it.get(ids[1])).progress is not None
        # Nobody was lost by it.
        assert [h.task.retry_count for h in it.crew.hands] == [0, 0, 0]
        await it.stop(ids[1])
        await it.crew.until(lambda: second.over.is_set())
        await it.saw(ids[1], "enqueued", "processing", "stopping", "stopped")
        await it.settled()
        assert (await it.capacity()).tasks["record"] == 1


async def test_what_a_queue_claimed_and_did_not_give_to_anybody_is_claimed_again(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock, limits={"tasks": 0}) as it:
        task_id = await it.start()
        now = it.services.clock.now()
        claim = ([task_id], "here", it.services.boot, now, SETTINGS.lease)
        ((_task, lease),) = await it.bench.store.write(records.claim, *claim)
        await it.crash_queue()
        await it.back()
        it.change(limits={"tasks": 5})
        await it.settled()
        assert it.crew.hands == []
        it.pass_time(SETTINGS.lease)
        hand = await it.crew.at(0)
        assert (hand.task.task_id, hand.lease.fence) == (task_id, lease.fence + 1)


async def test_a_start_that_the_queues_crash_cut_off_is_kept_or_not(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """Asked again with the same id, it is one task in any case."""
    async with yard(tmp_path, mock_clock, limits={"tasks": 0}) as it:

        async def start() -> None:
            with suppress(ActorDown):
                await it.start("same")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            await trio.testing.wait_all_tasks_blocked()
            await it.crash_queue()
        await it.back()
        task_id = await it.start("same")
        page = await it.queue.ask(ListTasks(APP, 2**62, 10, None, None))
        assert [view.task_id for view in page.tasks] == [task_id]


# -- the appliance ------------------------------------------------------------------------


@pytest.mark.parametrize("killed", [True, False])
async def test_the_next_boot_goes_on_with_what_was_not_over(
    tmp_path: Path, mock_clock: MockClock, killed: bool
) -> None:
    """After a kill its workers are lost; in an ordered stop they give back what they have."""
    async with yard(tmp_path, mock_clock, limits={"record": 2}) as it:
        it.crew.obedient = False
        ids = [await it.start(f"r{n}", f"c{n}") for n in range(4)]
        await it.crew.at(1)
        await it.stop(ids[1])
        first_boot = it.services.boot
        late = it.crew.hands[0].lease
        for hand in it.crew.hands if not killed else ():
            await it.bench.store.write(leases.release, hand.lease)
    async with yard(tmp_path, mock_clock, limits={"record": 3}) as it:
        assert it.services.boot == first_boot + 1
        await it.crew.at(2)
        # Those that were let in before come first.
        found = [
            (h.task.task_id, h.lease.fence, h.task.retry_count, h.task.state)
            for h in sorted(it.crew.hands[:3], key=lambda hand: ids.index(hand.task.task_id))
        ]
        assert found == [
            (ids[0], 2, int(killed), State.PROCESSING),
            (ids[1], 2, int(killed), State.STOPPING),
            (ids[2], 1, 0, State.PROCESSING),
        ]
        await it.saw(ids[1], "stopped")
        assert it.told(ids[0]) == (["enqueued", "processing"] if killed else [])
        with pytest.raises(LeaseLost):
            await it.bench.store.write(leases.hold, late)
        assert (await it.crew.at(3)).task.task_id == ids[3]
        # The same request, after the restart.
        assert await it.start("r0", "c0") == ids[0]


async def test_an_ordered_stop_leaves_tasks_as_they_are(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        hand = await it.crew.at(0)
    assert hand.stopped is not None
    assert hand.stopped.cause is Cause.SHUTDOWN
    assert it.told(task_id) == ["enqueued", "processing"]
    assert not hand.asked_to_end


async def test_what_was_over_is_not_begun_again(tmp_path: Path, mock_clock: MockClock) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        await (await it.crew.at(0)).end()
    async with yard(tmp_path, mock_clock) as it:
        await it.settled()
        assert it.crew.hands == []
        assert (await it.get(task_id)).state == "STOPPED"


# -- the disk -------------------------------------------------------------------------------


async def test_a_disk_that_refuses_puts_off_and_loses_nothing(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock, limits={"tasks": 0}) as it:
        task_id = await it.start("r1", "a")
        connection = it.bench.database.connection
        connection.execute("PRAGMA query_only = ON")
        it.change(limits={"tasks": 5})
        await refuses(it)
        with pytest.raises(StoreUnavailable):
            await it.start("r2", "b")
        with pytest.raises(StoreUnavailable):
            await it.stop(task_id)
        # It can still be asked, and nothing is set aside for what was not claimed.
        assert (await it.get(task_id)).state == "ENQUEUED"
        assert (await it.capacity()).tasks["tasks"] == 0
        assert it.child.restarts == 0
        connection.execute("PRAGMA query_only = OFF")
        await it.disk_recovered()
        hand = await it.crew.at(0)
        assert hand.task.task_id == task_id
        await hand.end()
        await it.saw(task_id, "enqueued", "processing", "stopped")


async def refuses(it: Yard) -> None:
    """Return when a claim was refused by the disk, and given up."""
    it.look()
    with trio.fail_after(20):
        while it.bench.store.failing is None or (await it.capacity()).tasks["tasks"]:
            await trio.sleep(0.005)


async def test_a_worker_that_is_lost_while_the_disk_refuses_is_replaced_later(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task_id = await it.start()
        first: Hand = await it.crew.at(0)
        connection = it.bench.database.connection
        connection.execute("PRAGMA query_only = ON")
        first.crash()
        with trio.fail_after(20):
            while it.bench.store.failing is None:
                it.look()
                await trio.sleep(0.01)
        assert it.crew.hands == [first]
        connection.execute("PRAGMA query_only = OFF")
        await it.disk_recovered()
        second = await it.crew.at(1)
        assert (second.lease.fence, second.task.retry_count) == (2, 1)
        await second.end()
        await it.saw(task_id, "enqueued", "processing", "enqueued", "processing", "stopped")
