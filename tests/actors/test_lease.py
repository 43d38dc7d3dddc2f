"""Leases in a real store: one holder at a time, a number that rises, and no way back for the late.

The clock of most tests is a number: a lease knows no other. That the real one goes by trio's, and
so takes no notice of a wall clock that is set, is looked at with one that jumps.
"""

from __future__ import annotations

import itertools
import pickle
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from trio.testing import MockClock

from actors import lease as leases
from actors.lease import Clock, Lease, LeaseLost
from supervisor.database import Database
from supervisor.transaction import Reading, Transaction
from tests.supervisor.kit import Bench

KIND, NODE, BOOT, SECONDS = "work", "here", 7, 45.0


@asynccontextmanager
async def store(folder: Path) -> AsyncIterator[Bench]:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            bench = await Bench(folder, [leases.migrations]).start(nursery)
            yield bench
            await bench.close()


async def take(bench: Bench, now: float, id: str = "a", boot: int = BOOT) -> Lease | None:
    return await bench.store.write(leases.take, KIND, id, NODE, boot, now, SECONDS)


async def taken(bench: Bench, now: float, id: str = "a", boot: int = BOOT) -> Lease:
    found = await take(bench, now, id, boot)
    assert found is not None
    return found


async def holds(bench: Bench, lease: Lease) -> bool:
    try:
        await bench.store.write(leases.hold, lease)
    except LeaseLost:
        return False
    return True


# -- one after the other --------------------------------------------------------------


async def test_one_holder_at_a_time(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        first = await taken(bench, 0)
        assert first == Lease(KIND, "a", 1, NODE, BOOT)
        assert await take(bench, 44.9) is None
        assert await holds(bench, first)
        # Others of the kind, and the same id of another kind, are others' business.
        assert (await taken(bench, 0, "b")).fence == 1
        other = await bench.store.write(leases.take, "play", "a", NODE, BOOT, 0.0, SECONDS)
        assert other is not None


async def test_a_lease_whose_time_is_over_can_be_taken_to_the_moment(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        late = await taken(bench, 0)
        assert await bench.store.read(leases.run_out, KIND, 44.999) == []
        assert await take(bench, 44.999) is None
        assert await bench.store.read(leases.run_out, KIND, 45.0) == ["a"]
        assert (await taken(bench, 45.0)).fence == 2
        assert not await holds(bench, late)


async def test_until_somebody_takes_or_ends_it_a_lease_is_in_force(tmp_path: Path) -> None:
    """A disk that took no writes for a minute costs nobody what he did meanwhile."""
    async with store(tmp_path) as bench:
        lease = await taken(bench, 0)
        assert await bench.store.read(leases.run_out, KIND, 100.0) == ["a"]
        await bench.store.write(leases.renew, lease, 100.0, SECONDS)
        assert await bench.store.read(leases.run_out, KIND, 100.0) == []
        assert await take(bench, 144.9) is None
        assert await holds(bench, lease)


async def test_a_renewed_lease_goes_on(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        lease = await taken(bench, 0)
        for now in (15.0, 30.0, 60.0, 104.9):
            await bench.store.write(leases.renew, lease, now, SECONDS)
            assert await take(bench, now + 44.9) is None
            assert await bench.store.read(leases.run_out, KIND, now + 44.9) == []
        assert await bench.store.read(leases.run_out, KIND, 149.9) == ["a"]


async def test_a_lease_that_is_given_back_is_free_at_once(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        lease = await taken(bench, 0)
        await bench.store.write(leases.release, lease)
        assert not await holds(bench, lease)
        assert await bench.store.read(leases.run_out, KIND, 1e9) == []
        following = await taken(bench, 1.0)
        assert following.fence == 2
        # Given back again, by the one that has it no more: nothing is changed.
        await bench.store.write(leases.release, lease)
        assert await holds(bench, following)


END: dict[str, Callable[[Transaction, Lease], object]] = {
    "released": leases.release,
    "ended by another": lambda tx, lease: leases.end(tx, lease.kind, lease.id),
    "of an earlier boot": lambda tx, lease: leases.take_back(tx, KIND, NODE, BOOT + 1),
    "forgotten": lambda tx, lease: leases.forget(tx, lease.kind, lease.id),
    "never there": lambda tx, lease: tx.execute("DELETE FROM leases"),
}


@pytest.mark.parametrize("how", END)
@pytest.mark.parametrize("again", [False, True])
async def test_a_late_holder_is_refused_whatever_ended_its_lease(
    tmp_path: Path, how: str, again: bool
) -> None:
    async with store(tmp_path) as bench:
        late = await taken(bench, 0)
        await taken(bench, 0, "before")
        await bench.store.write(END[how], late)
        if again and how not in ("forgotten", "never there"):
            assert (await taken(bench, 1.0)).fence == 2
        with pytest.raises(LeaseLost) as lost:
            await bench.store.write(leases.hold, late)
        assert lost.value.lease == late
        assert lost.value.code == "lease_lost"
        with pytest.raises(LeaseLost):
            await bench.store.write(leases.renew, late, 1.0, SECONDS)


async def test_what_a_late_holder_writes_is_not_kept(tmp_path: Path) -> None:
    """`hold` is the first line of a transaction: the rest of it does not happen."""

    def result(tx: Transaction, lease: Lease) -> None:
        leases.hold(tx, lease)
        tx.emit("work.done", "work/a", {})

    async with store(tmp_path) as bench:
        late = await taken(bench, 0)
        new = await taken(bench, 50.0)
        with pytest.raises(LeaseLost):
            await bench.store.write(result, late)
        await bench.store.write(result, new)
        assert [e.type for e in bench.published] == ["work.done"]


async def test_a_start_takes_back_what_this_nodes_earlier_boots_held(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        mine = [await taken(bench, 0, name) for name in "ab"]
        elsewhere = await bench.store.write(leases.take, KIND, "c", "there", 3, 0.0, SECONDS)
        other_kind = await bench.store.write(leases.take, "play", "a", NODE, BOOT, 0.0, SECONDS)
        back = await bench.store.write(leases.take_back, KIND, NODE, BOOT + 1)
        assert sorted(back) == ["a", "b"]
        assert [await holds(bench, lease) for lease in mine] == [False, False]
        for lease in (elsewhere, other_kind):
            assert lease is not None
            assert await holds(bench, lease)
        assert await bench.store.write(leases.take_back, KIND, NODE, BOOT + 1) == []
        # Its own are not earlier ones'.
        await taken(bench, 1.0, "a", BOOT + 1)
        assert await bench.store.write(leases.take_back, KIND, NODE, BOOT + 1) == []


async def test_what_ran_out_is_told_the_longest_overdue_first(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        for now, name in ((2.0, "b"), (1.0, "a"), (3.0, "c")):
            await taken(bench, now, name)
        assert await bench.store.read(leases.run_out, KIND, 47.5) == ["a", "b"]
        assert await bench.store.read(leases.run_out, KIND, 1e9) == ["a", "b", "c"]
        assert await bench.store.read(leases.run_out, KIND, 1e9, 1) == ["a"]


async def test_leases_outlive_the_process(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        lease = await taken(bench, 0)
    async with store(tmp_path) as bench:
        assert await take(bench, 1.0) is None
        assert await holds(bench, lease)
        assert (await taken(bench, 45.0)).fence == 2


async def test_many_that_want_it_at_once_are_one(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        got: list[Lease | None] = []

        async def want() -> None:
            got.append(await take(bench, 0))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(want)
        assert [lease.fence for lease in got if lease is not None] == [1]


def test_a_lost_lease_can_be_sent_on() -> None:
    lease = Lease(KIND, "a", 3, NODE, BOOT)
    again = pickle.loads(pickle.dumps(LeaseLost(lease)))
    assert (again.lease, again.code, str(again)) == (lease, "lease_lost", str(LeaseLost(lease)))


# -- in any order -----------------------------------------------------------------------


class Leases(RuleBasedStateMachine):
    """Any order of everything, on a real database, beside what must come of it.

    Each run is a transaction that is taken back.
    """

    connection: ClassVar[sqlite3.Connection]
    known = Bundle("known")

    def __init__(self) -> None:
        super().__init__()
        self.connection.execute("BEGIN")
        self.tx = Transaction(self.connection, 0)
        self.now = 0.0
        self.boot = 1
        self.fences: dict[str, int] = {}
        # Who has it, and until when nobody else may.
        self.holder: dict[str, tuple[Lease, float]] = {}

    def teardown(self) -> None:
        self.connection.execute("ROLLBACK")

    def in_force(self, lease: Lease) -> bool:
        held = self.holder.get(lease.id)
        return held is not None and held[0] == lease

    @rule(target=known, id=st.sampled_from("ab"), seconds=st.sampled_from([1.0, 45.0]))
    def take(self, id: str, seconds: float) -> Any:
        lease = leases.take(self.tx, KIND, id, NODE, self.boot, self.now, seconds)
        held = self.holder.get(id)
        free = held is None or held[1] <= self.now
        assert (lease is not None) == free
        if lease is None:
            return multiple()
        assert lease.fence > self.fences.get(id, 0)
        self.fences[id] = lease.fence
        self.holder[id] = (lease, self.now + seconds)
        return lease

    @rule(lease=known)
    def hold(self, lease: Lease) -> None:
        self._as_by_right(lease, lambda: leases.hold(self.tx, lease))

    @rule(lease=known, seconds=st.sampled_from([1.0, 45.0]))
    def renew(self, lease: Lease, seconds: float) -> None:
        right = self.in_force(lease)
        self._as_by_right(lease, lambda: leases.renew(self.tx, lease, self.now, seconds))
        if right:
            self.holder[lease.id] = (lease, self.now + seconds)

    def _as_by_right(self, lease: Lease, do: Callable[[], None]) -> None:
        if self.in_force(lease):
            do()
        else:
            with pytest.raises(LeaseLost):
                do()

    @rule(lease=known | consumes(known))
    def release(self, lease: Lease) -> None:
        leases.release(self.tx, lease)
        held = self.holder.get(lease.id)
        if held is not None and held[0] == lease:
            del self.holder[lease.id]

    @rule(id=st.sampled_from("ab"))
    def end(self, id: str) -> None:
        leases.end(self.tx, KIND, id)
        self.holder.pop(id, None)

    @rule()
    def boot_again(self) -> None:
        self.boot += 1
        held = set(self.holder)
        assert set(leases.take_back(self.tx, KIND, NODE, self.boot)) == held
        self.holder.clear()

    @rule(seconds=st.sampled_from([0.5, 1.0, 20.0, 45.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_overdue_are_known(self) -> None:
        due = {name for name, (_, until) in self.holder.items() if until <= self.now}
        reading = Reading(self.connection)
        assert set(leases.run_out(reading, KIND, self.now)) == due


def test_in_any_order_there_is_one_holder_and_the_late_are_refused(tmp_path: Path) -> None:
    database = Database(tmp_path, [leases.migrations])
    Leases.connection = database.connection
    try:
        run_state_machine_as_test(
            Leases,
            settings=settings(
                max_examples=60, stateful_step_count=40, deadline=None, database=None
            ),
        )
    finally:
        database.close()


# -- the clock --------------------------------------------------------------------------


async def test_time_goes_by_trio_whatever_the_wall_clock_is_set_to(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = itertools.count(1_700_000_000.0, 1e6)
    clock = Clock()
    assert abs(clock.now() - time.time()) < 60
    began = clock.now()
    # From here on each look at the wall clock is days after the one before.
    monkeypatch.setattr(time, "time", lambda: next(wall))
    mock_clock.jump(30.0)
    assert clock.now() == pytest.approx(began + 30.0)
    mock_clock.jump(15.0)
    assert clock.now() == pytest.approx(began + 45.0)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=5))
@settings(deadline=None, max_examples=20)
def test_a_clock_that_jumps_neither_ends_a_lease_nor_keeps_it(jumps: list[float]) -> None:
    async def main() -> None:
        clock = Clock()
        until = clock.now() + SECONDS
        seen = []
        for jump in jumps:
            with pytest.MonkeyPatch.context() as patch:
                wall = time.time() + jump
                patch.setattr(time, "time", lambda wall=wall: wall)
                await trio.sleep(SECONDS / len(jumps) * 0.999)
                seen.append(clock.now() < until)
        await trio.sleep(1.0)
        assert seen == [True] * len(jumps)
        assert clock.now() >= until

    trio.run(main, clock=MockClock(autojump_threshold=0))
