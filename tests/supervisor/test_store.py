"""The store: one writer with group commit; nothing is answered or told before it is on disk.

Real threads and a real SQLite file: the clock is the real one, and a gate in the writer's thread
says when a batch may go on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

import supervisor.store
from supervisor.child import State
from supervisor.errors import Rejected, StoreUnavailable
from supervisor.event import Event, Topics
from supervisor.store import MAX_BATCH
from supervisor.transaction import Reading, Transaction
from tests.supervisor.kit import Bench, Gate, put, reach, word_migrations, words


@pytest.fixture(autouse=True)
def _probe_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor.store, "PROBE_EVERY", 0.05)


@pytest.fixture
async def bench(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Bench]:
    bench = await Bench(tmp_path, [word_migrations]).start(nursery)
    yield bench
    with trio.fail_after(20):
        await bench.close()


class Writes:
    """Many writes at once, and how each ended."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.answers: dict[str, int] = {}
        self.errors: dict[str, Exception] = {}

    async def put(self, word: str) -> None:
        try:
            self.answers[word] = await self.bench.store.write(put, word)
        except (StoreUnavailable, sqlite3.Error) as error:
            self.errors[word] = error


async def hold(bench: Bench, nursery: trio.Nursery) -> Gate:
    """Keep the writer in a batch of its own until the gate is opened."""
    gate = Gate()
    nursery.start_soon(bench.store.write, gate)
    await gate.entered.wait()
    return gate


async def test_many_writers_share_few_commits(bench: Bench, nursery: trio.Nursery) -> None:
    with trio.fail_after(20):
        gate = await hold(bench, nursery)
        writes, before = Writes(bench), bench.store.commits
        async with trio.open_nursery() as writers:
            for n in range(1000):
                writers.start_soon(writes.put, str(n))
            await wait_all_tasks_blocked()
            assert bench.store.waiting == 1000
            gate.open()
    assert len(writes.answers) == 1000
    # One for the gate, then four batches.
    assert bench.store.commits - before == 1 + -(-1000 // MAX_BATCH)
    assert sorted(writes.answers.values()) == list(range(1, 1001))


async def test_writes_are_done_in_the_order_they_came(bench: Bench, nursery: trio.Nursery) -> None:
    with trio.fail_after(20):
        gate = await hold(bench, nursery)
        for n in range(500):
            bench.store.submit(put, f"{n:03}")
        gate.open()
        await bench.store.write(put, "last")
        assert await bench.store.read(words) == [f"{n:03}" for n in range(500)] + ["last"]


async def test_one_bad_command_fails_alone_and_its_events_with_it(
    bench: Bench, nursery: trio.Nursery
) -> None:
    def bad(tx: Transaction) -> None:
        put(tx, "half")
        tx.emit("word.imagined", "word/half")
        raise KeyError("bad")

    with trio.fail_after(20):
        gate, writes = await hold(bench, nursery), Writes(bench)
        async with trio.open_nursery() as writers:
            writers.start_soon(writes.put, "before")
            await wait_all_tasks_blocked()

            async def fail() -> None:
                with pytest.raises(KeyError, match="bad"):
                    await bench.store.write(bad)

            writers.start_soon(fail)
            await wait_all_tasks_blocked()
            writers.start_soon(writes.put, "after")
            await wait_all_tasks_blocked()
            before = bench.store.commits
            gate.open()
        # The gate's batch and theirs: they shared one.
        assert bench.store.commits == before + 2
        assert await bench.store.read(words) == ["before", "after"]
    assert writes.answers == {"before": 1, "after": 2}
    assert [e.type for e in bench.published] == ["word.kept", "word.kept"]


async def test_a_command_of_bad_sql_fails_alone(bench: Bench) -> None:
    with trio.fail_after(20):
        await bench.store.write(put, "twice")
        with pytest.raises(sqlite3.IntegrityError):
            await bench.store.write(put, "twice")
        with pytest.raises(sqlite3.OperationalError):
            await bench.store.write(lambda tx: tx.execute("SELECT nonsense"))
        assert await bench.store.write(put, "next") == 2
    assert bench.store.failing is None


async def test_nothing_is_answered_or_published_before_it_is_committed(bench: Bench) -> None:
    seen: list[tuple[int, list[tuple[str]]]] = []

    def on_publish(events: list[Event]) -> None:
        seen.append((events[-1].seq, bench.rows("SELECT word FROM words")))

    bench.on_publish = on_publish
    with trio.fail_after(20):
        seq = await bench.store.write(put, "one")
    assert bench.rows("SELECT seq FROM events") == [(1,)]
    # Published before it was answered, and there for everybody by then.
    assert seen == [(seq, [("one",)])]


async def test_while_it_runs_nobody_else_sees_it(bench: Bench, nursery: trio.Nursery) -> None:
    gate = Gate()

    def slow(tx: Transaction) -> None:
        put(tx, "slow")
        gate(tx)

    nursery.start_soon(bench.store.write, slow)
    with trio.fail_after(20):
        await gate.entered.wait()
        assert await bench.store.read(words) == []
        assert bench.published == []
        gate.open()
        await bench.log.past(0)
        assert await bench.store.read(words) == ["slow"]


COMMANDS = st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30)


@settings(
    max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(COMMANDS)
async def test_numbers_rise_without_a_hole_whatever_fails(
    tmp_path_factory: pytest.TempPathFactory, commands: list[tuple[int, bool]]
) -> None:
    """Each command emits so many events, and then fails or not."""

    def run(tx: Transaction, at: int, count: int, fails: bool) -> None:
        for n in range(count):
            tx.emit("count.ed", f"count/{at}.{n}")
        if fails:
            raise Rejected("no", "as told")

    async def write(bench: Bench, at: int, count: int, fails: bool) -> None:
        try:
            await bench.store.write(run, at, count, fails)
        except Rejected:
            assert fails

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            bench = await Bench(tmp_path_factory.mktemp("state")).start(nursery)
            async with trio.open_nursery() as writers:
                for at, (count, fails) in enumerate(commands):
                    writers.start_soon(write, bench, at, count, fails)
            kept = sum(count for count, fails in commands if not fails)
            assert [e.seq for e in bench.published] == list(range(1, kept + 1))
            stored = bench.rows("SELECT seq, subject FROM events ORDER BY seq")
            assert stored == [(e.seq, e.subject) for e in bench.published]
            await bench.close()


async def test_the_event_told_is_the_event_stored(bench: Bench) -> None:
    with trio.fail_after(20):
        await bench.store.write(put, "one")
    (event,) = bench.published
    assert bench.rows("SELECT seq, ts, type, subject, data FROM events") == [
        (event.seq, event.ts, "word.kept", "word/one", bytes(event.data).decode())
    ]
    assert bytes(event.data) == b'{"word":"one"}'


# -- cancellation -------------------------------------------------------------------


async def test_cancelled_in_the_queue_a_write_is_withdrawn(
    bench: Bench, nursery: trio.Nursery
) -> None:
    with trio.fail_after(20):
        gate = await hold(bench, nursery)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as writers:
                writers.start_soon(bench.store.write, put, "withdrawn")
                await wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        assert bench.store.waiting == 0
        gate.open()
        await bench.store.write(put, "next")
        assert await bench.store.read(words) == ["next"]


async def test_cancelled_after_it_was_taken_up_a_write_is_waited_for(
    bench: Bench, nursery: trio.Nursery
) -> None:
    gate = Gate()
    answers: list[int] = []

    def slow(tx: Transaction) -> int:
        gate(tx)
        return put(tx, "taken")

    async def write(scope: trio.CancelScope) -> None:
        with scope:
            answers.append(await bench.store.write(slow))

    scope = trio.CancelScope()
    with trio.fail_after(20):
        async with trio.open_nursery() as writers:
            writers.start_soon(write, scope)
            await gate.entered.wait()
            scope.cancel()
            await wait_all_tasks_blocked()
            assert answers == []
            gate.open()
    # Whoever asked knows: it was done, and this is its answer.
    assert answers == [1]
    assert bench.rows("SELECT word FROM words") == [("taken",)]


async def test_a_writer_cancelled_in_the_middle_of_a_batch_finishes_and_answers_it(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    bench = Bench(tmp_path, [word_migrations])
    gate = Gate()
    answers: list[int] = []

    async def write() -> None:
        def slow(tx: Transaction) -> int:
            gate(tx)
            return put(tx, "taken")

        answers.append(await bench.store.write(slow))

    async def open_later() -> None:
        await wait_all_tasks_blocked()
        gate.open()

    with trio.fail_after(20):
        async with trio.open_nursery() as inner:
            await bench.start(inner)
            nursery.start_soon(write)
            await gate.entered.wait()
            inner.cancel_scope.cancel()
            nursery.start_soon(open_later)
        await wait_all_tasks_blocked()
    assert answers == [1]
    assert bench.rows("SELECT word FROM words") == [("taken",)]
    bench.database.close()


async def test_stopped_it_first_writes_all_that_is_queued(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    bench = await Bench(tmp_path, [word_migrations]).start(nursery)
    with trio.fail_after(20):
        gate = await hold(bench, nursery)
        for n in range(600):
            bench.store.submit(put, str(n))
        nursery.start_soon(bench.tree.stop)
        await wait_all_tasks_blocked()
        gate.open()
        await bench.close()
    with Bench(tmp_path, [word_migrations]).database.reader() as again:
        assert len(words(Reading(again))) == 600


async def test_closed_it_refuses_at_once(bench: Bench) -> None:
    bench.store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await bench.store.write(put, "late")
    bench.store.submit(put, "late as well")
    assert bench.store.waiting == 0


async def test_the_queue_is_bounded(
    bench: Bench, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor.store, "MAX_QUEUE", 10)
    with trio.fail_after(20):
        gate = await hold(bench, nursery)
        for n in range(10):
            bench.store.submit(put, str(n))
        with pytest.raises(StoreUnavailable, match="10 writes are waiting"):
            await bench.store.write(put, "one too many")
        gate.open()


# -- readers -------------------------------------------------------------------------


async def test_read_connections_are_read_only(bench: Bench) -> None:
    def sneak(db: Reading) -> object:
        return db.one("INSERT INTO words (word) VALUES ('sneaked') RETURNING word")

    with trio.fail_after(20):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await bench.store.read(sneak)
        assert await bench.store.read(words) == []


async def test_a_failed_read_leaves_its_connection_usable(bench: Bench) -> None:
    def bad(db: Reading) -> object:
        db.all("SELECT word FROM words")
        raise KeyError("reader")

    with trio.fail_after(20):
        for n in range(10):
            with pytest.raises(KeyError):
                await bench.store.read(bad)
            await bench.store.write(put, str(n))
            # Not a snapshot from before: the connection is not left in a transaction.
            assert len(await bench.store.read(words)) == n + 1


async def test_readers_do_not_wait_for_the_writer(bench: Bench, nursery: trio.Nursery) -> None:
    with trio.fail_after(20):
        await bench.store.write(put, "before")
        gate = await hold(bench, nursery)
        assert await bench.store.read(words) == ["before"]
        gate.open()


# -- a disk that refuses ---------------------------------------------------------------


async def test_a_read_only_disk_refuses_writes_serves_reads_and_recovers_by_itself(
    bench: Bench,
) -> None:
    """SQLite's own refusal, on the writer's connection; test_disk.py has the real disks."""

    def failing() -> str | None:
        return bench.store.failing

    reader = bench.log.reader(None, Topics(["store"]), bench.store)
    with trio.fail_after(20):
        await bench.store.write(put, "before")
        bench.database.connection.execute("PRAGMA query_only = ON")
        writes = Writes(bench)
        async with trio.open_nursery() as writers:
            for n in range(5):
                writers.start_soon(writes.put, str(n))
        assert writes.answers == {}
        assert {str(e) for e in writes.errors.values()} == {"the disk is read-only"}
        assert failing() == "the disk is read-only"
        assert bench.store.failing_since is not None
        assert await bench.store.read(words) == ["before"]
        assert [e.type for e in bench.published] == ["word.kept"]
        bench.database.connection.execute("PRAGMA query_only = OFF")
        told = await reader.read()
        assert isinstance(told, list)
        assert [e.type for e in told] == ["store.failed", "store.recovered"]
        assert failing() is None
        # Numbers go on where they were: nothing of what was refused took one.
        assert [e.seq for e in bench.published] == [1, 2, 3]
        assert await bench.store.write(put, "after") == 4


async def test_a_failed_commit_fails_every_command_of_it_and_keeps_none(
    bench: Bench, nursery: trio.Nursery
) -> None:
    """The last of the batch breaks the transaction for all."""

    def breaks(tx: Transaction) -> None:
        tx.execute("ROLLBACK")

    with trio.fail_after(20):
        gate, writes = await hold(bench, nursery), Writes(bench)
        async with trio.open_nursery() as writers:
            writers.start_soon(writes.put, "one")
            await wait_all_tasks_blocked()

            async def fail() -> None:
                with pytest.raises(StoreUnavailable):
                    await bench.store.write(breaks)

            writers.start_soon(fail)
            await wait_all_tasks_blocked()
            gate.open()
        assert list(writes.errors) == ["one"]
        assert await bench.store.read(words) == []
        assert bench.published == []
        assert await bench.store.write(put, "next") == 1


async def test_a_writer_that_crashes_answers_who_waits_and_is_restarted(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    bench = await Bench(tmp_path, [word_migrations]).start(nursery)
    with trio.fail_after(20):
        # A bug that no code of the writer expects.
        bench.database.connection.close()
        with pytest.raises(StoreUnavailable):
            await bench.store.write(put, "lost")
        bench.database.connection = sqlite3.connect(
            bench.database.path, isolation_level=None, check_same_thread=False
        )
        child = bench.tree.child("store")
        if child.state is not State.RUNNING:
            await reach(child, State.RUNNING)
        await bench.store.write(put, "kept")
        assert await bench.store.read(words) == ["kept"]
        await bench.close()


def failing(bench: Bench) -> str | None:
    return bench.store.failing


async def test_a_disk_that_turns_read_only_refuses_writes_and_serves_reads(bench: Bench) -> None:
    """SQLite itself refuses, as it does when the file system was mounted read-only under it."""
    reader = bench.log.reader(None, Topics(["store"]), bench.store)
    await bench.store.write(put, "before")
    bench.store.database.connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailable, match="read-only"):
        await bench.store.write(put, "refused")
    assert failing(bench) == "the disk is read-only"
    assert await bench.store.read(words) == ["before"]
    bench.store.database.connection.execute("PRAGMA query_only = OFF")
    with trio.fail_after(10):
        told = await reader.read()
    assert isinstance(told, list)
    assert [event.type for event in told] == ["store.failed", "store.recovered"]
    assert failing(bench) is None
    await bench.store.write(put, "after")
    assert await bench.store.read(words) == ["before", "after"]
