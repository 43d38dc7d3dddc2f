"""The log's readers: replay, then live, no hole and no repeat, and nobody waits for anybody."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from supervisor.bus import Gap, Reader, TokenError
from supervisor.event import Event, Topics, encode, timestamp
from supervisor.transaction import Transaction
from tests.supervisor.kit import Bench

ALL = Topics()
KINDS = ("call", "gateway", "job")


def emit(tx: Transaction, count: int) -> None:
    """Events of three kinds in turn, by their number."""
    for _ in range(count):
        kind = KINDS[(tx.head + 1) % 3]
        tx.emit(f"{kind}.changed", f"{kind}/{(tx.head + 1) % 5}")


def forget(tx: Transaction, before: int) -> None:
    tx.execute("DELETE FROM events WHERE seq < ?", (before,))


async def retain(bench: Bench, first: int) -> None:
    """What retention does."""
    await bench.store.write(forget, first)
    bench.log.forgotten(first)


@pytest.fixture
async def bench(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Bench]:
    # Small, so that both ways of reading are used.
    bench = await Bench(tmp_path, ring=8).start(nursery)
    yield bench
    with trio.fail_after(20):
        await bench.close()


async def read(reader: Reader, limit: int = 256) -> list[int]:
    """The numbers of what comes next: it must be events."""
    got = await reader.read(limit)
    assert isinstance(got, list), got
    return [e.seq for e in got]


async def read_up_to(reader: Reader, seq: int) -> list[int]:
    got: list[int] = []
    while reader.cursor < seq:
        got += await read(reader)
    return got


# -- replay, then live ------------------------------------------------------------


async def test_without_a_token_it_begins_with_what_happens_from_now_on(bench: Bench) -> None:
    with trio.fail_after(20):
        await bench.store.write(emit, 3)
        reader = bench.log.reader(None, ALL, bench.store)
        await bench.store.write(emit, 2)
        assert await read(reader) == [4, 5]


async def test_from_a_token_it_replays_and_goes_on_live(bench: Bench) -> None:
    with trio.fail_after(20):
        await bench.store.write(emit, 100)
        reader = bench.log.reader(bench.log.token(10), ALL, bench.store)
        assert reader.behind == 90
        assert await read_up_to(reader, 100) == list(range(11, 101))
        await bench.store.write(emit, 1)
        assert await read(reader) == [101]
        assert reader.token == bench.log.token() == f"{bench.database.epoch}:101"


async def test_what_is_replayed_is_what_was_live(bench: Bench) -> None:
    with trio.fail_after(20):
        live = bench.log.reader(None, ALL, bench.store)
        await bench.store.write(emit, 4)
        from_memory = await live.read()
        await bench.store.write(emit, 40)
        assert bench.log.recent(0, 10) is None
        replayed = await bench.log.reader(bench.log.token(0), ALL, bench.store).read(4)
    assert isinstance(from_memory, list)
    assert isinstance(replayed, list)
    assert [encode(e) for e in from_memory] == [encode(e) for e in replayed]


async def test_after_a_restart_the_token_of_before_goes_on_where_it_was(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    with trio.fail_after(20):
        first = await Bench(tmp_path).start(nursery)
        await first.store.write(emit, 5)
        token = first.log.token(3)
        await first.close()
        second = await Bench(tmp_path).start(nursery)
        reader = second.log.reader(token, ALL, second.store)
        assert await read(reader) == [4, 5]
        await second.store.write(emit, 1)
        assert await read(reader) == [6]
        await second.close()


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "read", "cancel"]), st.integers(1, 12), st.integers(0, 2)),
    max_size=40,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS, st.lists(st.sampled_from(KINDS), max_size=2, unique=True))
async def test_whatever_is_written_read_and_cancelled_no_reader_misses_or_repeats_any(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, int, int]],
    topics: list[str],
) -> None:
    """Three readers at their own pace over a ring of four; one reads only some topics."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            bench = await Bench(tmp_path_factory.mktemp("state"), ring=4).start(nursery)
            wanted = [ALL, ALL, Topics(topics)]
            readers = [bench.log.reader(bench.log.token(0), t, bench.store) for t in wanted]
            got: list[list[Event]] = [[], [], []]

            async def step(at: int, limit: int) -> None:
                events = await readers[at].read(limit)
                assert isinstance(events, list)
                got[at] += events

            for action, number, at in steps:
                if action == "write":
                    await bench.store.write(emit, number)
                elif action == "read" and readers[at].behind:
                    # Nothing it wants may be there: then it waits, and is cancelled.
                    with trio.move_on_after(0.05):
                        await step(at, number)
                else:
                    with trio.CancelScope() as scope:
                        async with trio.open_nursery() as inner:
                            inner.start_soon(step, at, number)
                            for _ in range(number % 4):
                                await trio.lowlevel.checkpoint()
                            scope.cancel()
            await bench.store.write(emit, 3)
            published = bench.published
            assert [e.seq for e in published] == list(range(1, bench.log.head + 1))
            for at in range(3):
                expected = wanted[at].select(published)
                while len(got[at]) < len(expected):
                    await step(at, 3)
                assert got[at] == expected
            await bench.close()


# -- topics -----------------------------------------------------------------------

SAMPLE = [
    ("gateway.started", "gateway/gw01"),
    ("gateway.stopped", "gateway/gw02"),
    ("call.ended", "call/7"),
    ("store.failed", "system/store"),
]


@pytest.mark.parametrize(
    ("topics", "chosen"),
    [
        ([], [0, 1, 2, 3]),
        (["*"], [0, 1, 2, 3]),
        (["", "  "], [0, 1, 2, 3]),
        (["gateway/gw01"], [0]),
        (["gateway/*"], [0, 1]),
        (["gateway.stopped"], [1]),
        (["gateway.*"], [0, 1]),
        (["gateway"], [0, 1]),
        (["system"], [3]),
        (["store.*"], [3]),
        ([" call/7 ", "gateway/gw02"], [1, 2]),
        (["gateway/gw0", "gate", "call/77", "call.end"], []),
    ],
)
def test_topics_choose_by_subject_kind_or_type(topics: list[str], chosen: list[int]) -> None:
    events = [
        Event(n, timestamp(), kind, subject, msgspec.Raw(b"{}"))
        for n, (kind, subject) in enumerate(SAMPLE)
    ]
    assert [e.seq for e in Topics(topics).select(events)] == chosen


async def test_a_reader_of_some_topics_waits_until_one_of_them_comes(
    bench: Bench, nursery: trio.Nursery
) -> None:
    reader = bench.log.reader(None, Topics(["rare"]), bench.store)
    got: list[Gap | list[Event]] = []

    async def wait() -> None:
        got.append(await reader.read())

    with trio.fail_after(20):
        async with trio.open_nursery() as inner:
            inner.start_soon(wait)
            await bench.store.write(emit, 50)
            await wait_all_tasks_blocked()
            assert got == []
            await bench.store.write(lambda tx: tx.emit("rare.bird", "bird/1"))
    assert isinstance(got[0], list)
    assert [e.seq for e in got[0]] == [51]
    assert reader.behind == 0


# -- gaps -------------------------------------------------------------------------


async def test_older_than_retention_it_is_told_of_the_gap_first(bench: Bench) -> None:
    with trio.fail_after(20):
        await bench.store.write(emit, 50)
        await retain(bench, 31)
        token = bench.log.token(10)
        reader = bench.log.reader(token, ALL, bench.store)
        assert await reader.read() == Gap("retention", token, 31)
        assert await read_up_to(reader, 50) == list(range(31, 51))


async def test_at_the_edge_of_retention_there_is_no_gap(bench: Bench) -> None:
    with trio.fail_after(20):
        await bench.store.write(emit, 50)
        await retain(bench, 31)
        reader = bench.log.reader(bench.log.token(30), ALL, bench.store)
        assert await read_up_to(reader, 50) == list(range(31, 51))


@pytest.mark.parametrize("told", [True, False])
async def test_a_reader_that_retention_overtakes_is_told_of_what_it_lost(
    bench: Bench, told: bool
) -> None:
    """Also when the rows go between its look and its query."""
    with trio.fail_after(20):
        await bench.store.write(emit, 50)
        reader = bench.log.reader(bench.log.token(0), ALL, bench.store)
        assert await read(reader, limit=5) == [1, 2, 3, 4, 5]
        await bench.store.write(forget, 21)
        if told:
            bench.log.forgotten(21)
        assert await reader.read() == Gap("retention", bench.log.token(5), 21)
        assert await read_up_to(reader, 50) == list(range(21, 51))


async def test_when_retention_took_all_there_is_a_gap_and_then_what_comes(
    bench: Bench,
) -> None:
    with trio.fail_after(20):
        await bench.store.write(emit, 50)
        reader = bench.log.reader(bench.log.token(5), ALL, bench.store)
        await bench.store.write(forget, 51)
        assert await reader.read() == Gap("retention", bench.log.token(5), 51)
        await bench.store.write(emit, 2)
        assert await read(reader) == [51, 52]


async def test_a_token_of_another_log_is_a_gap_and_then_all_of_this_one(bench: Bench) -> None:
    with trio.fail_after(20):
        await bench.store.write(emit, 5)
        reader = bench.log.reader("cafe0000:3", ALL, bench.store)
        assert await reader.read() == Gap("epoch", "cafe0000:3", 1)
        assert await read_up_to(reader, 5) == [1, 2, 3, 4, 5]


async def test_a_token_of_what_has_not_happened_is_a_gap(bench: Bench) -> None:
    with trio.fail_after(20):
        await bench.store.write(emit, 5)
        token = bench.log.token(6)
        reader = bench.log.reader(token, ALL, bench.store)
        assert await reader.read() == Gap("ahead", token, 1)
        assert await read_up_to(reader, 5) == [1, 2, 3, 4, 5]


async def test_from_zero_is_all_that_is_kept_and_no_gap(bench: Bench) -> None:
    with trio.fail_after(20):
        await bench.store.write(emit, 50)
        await retain(bench, 31)
        reader = bench.log.reader("0", ALL, bench.store)
        assert await read_up_to(reader, 50) == list(range(31, 51))


async def test_the_token_of_the_head_is_no_gap(bench: Bench) -> None:
    with trio.fail_after(20):
        await bench.store.write(emit, 5)
        reader = bench.log.reader(bench.log.token(), ALL, bench.store)
        await bench.store.write(emit, 1)
        assert await read(reader) == [6]


@pytest.mark.parametrize(
    "token", ["", "7", ":7", "cafe:", "cafe:-1", "cafe:1.5", "cafe:٧", "cafe:x", "cafe:" + "9" * 19]
)
async def test_what_is_no_token_is_refused(bench: Bench, token: str) -> None:
    with pytest.raises(TokenError, match=re.escape(repr(token))):
        bench.log.reader(token, ALL, bench.store)


# -- slow readers -------------------------------------------------------------------


async def test_a_reader_that_does_not_read_costs_nobody_anything(bench: Bench) -> None:
    with trio.fail_after(30):
        slow = [bench.log.reader(None, ALL, bench.store) for _ in range(100)]
        quick = bench.log.reader(None, ALL, bench.store)
        for _ in range(200):
            await bench.store.write(emit, 3)
            # Who keeps up reads from memory.
            assert bench.log.recent(quick.cursor, 10) is not None
            assert await read(quick) == [bench.log.head - n for n in (2, 1, 0)]
        assert len(bench.log._ring) <= 8
        assert {r.behind for r in slow} == {600}
        # And it has lost nothing: it comes back by the database.
        assert await read_up_to(slow[0], 600) == list(range(1, 601))


async def test_memory_stays_bounded_while_nobody_reads(bench: Bench) -> None:
    with trio.fail_after(30):
        readers = [bench.log.reader(None, ALL, bench.store) for _ in range(100)]
        bench.on_publish = lambda _events: None
        await bench.store.write(emit, 2000)
        tracemalloc.start()
        try:
            for _ in range(20):
                await bench.store.write(emit, 500)
            grown = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert readers[0].behind == 12_000
    # Ten thousand events would be some megabytes.
    assert grown < 500_000


async def test_a_cancelled_read_loses_nothing(bench: Bench) -> None:
    with trio.fail_after(20):
        reader = bench.log.reader(None, ALL, bench.store)
        for _ in range(3):
            with trio.move_on_after(0):
                await reader.read()
        await bench.store.write(emit, 30)
        for _ in range(3):
            with trio.CancelScope() as scope:
                scope.cancel()
                await reader.read()
        assert await read_up_to(reader, 30) == list(range(1, 31))


def test_an_event_is_one_json_object() -> None:
    event = Event(7, "2026-01-31T23:59:59.000001Z", "a.b", "a/1", msgspec.Raw(b'{"x":1}'))
    assert json.loads(encode(event)) == {
        "seq": 7,
        "ts": "2026-01-31T23:59:59.000001Z",
        "type": "a.b",
        "subject": "a/1",
        "data": {"x": 1},
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", timestamp())
