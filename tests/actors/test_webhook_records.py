"""The rows of webhooks: which index finds what waits, and the epochs of the log."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from actors.webhook import delivery_records, records
from actors.webhook.delivery_records import Fresh
from actors.webhook.machine import Next, Outcome, State
from supervisor.event import Event
from supervisor.transaction import Parameters, Reading, Row, Transaction
from tests.supervisor.kit import Bench


class Explained(Reading):
    """Notes how each query is carried out."""

    plans: list[str]

    def one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        self._explain(sql, parameters)
        return super().one(sql, parameters)

    def all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        self._explain(sql, parameters)
        return super().all(sql, parameters)

    def value(self, sql: str, parameters: Parameters = ()) -> object:
        self._explain(sql, parameters)
        return super().value(sql, parameters)

    def _explain(self, sql: str, parameters: Parameters) -> None:
        rows = self._connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
        self.plans.append(" ".join(str(row[3]) for row in rows))


def event(seq: int, subject: str = "thing/a") -> Event:
    return Event(seq, "2026-01-01T00:00:00.000000Z", "thing.happened", subject, msgspec.Raw(b"{}"))


def fresh(*seqs: int) -> list[Fresh]:
    return [Fresh(event(seq), once=False) for seq in seqs]


async def test_what_is_over_costs_nothing_to_those_who_look_for_what_waits(tmp_path: Path) -> None:
    def look(db: Reading) -> list[str]:
        explained = Explained(db._connection)
        explained.plans = []
        delivery_records.pending(explained, "hook")
        records.count_dead(explained, "hook")
        delivery_records.page(explained, "hook", "dead", 9, 9)
        delivery_records.page(explained, "hook", "pending", 9, 9)
        return explained.plans

    async with trio.open_nursery() as nursery:
        bench = await Bench(tmp_path, [records.migrations]).start(nursery)
        plans = await bench.store.read(look)
        await bench.close()
    assert len(plans) == 4
    for plan in plans:
        assert "webhook_open (endpoint=? AND state=?" in plan, plan


async def test_an_event_is_queued_once_whatever_is_read_again(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        bench = await Bench(tmp_path, [records.migrations]).start(nursery)
        write = bench.store.write
        await write(records.open_endpoint, "hook", "s", "e")
        queued = await write(delivery_records.queue, "hook", fresh(1, 2), 48.0, 2)
        assert queued == [(1, "thing/a"), (2, "thing/a")]
        done = Next(State.DELIVERED, 1)
        await write(delivery_records.settle, "hook", 1, Outcome(204), done)
        queued = await write(delivery_records.queue, "hook", fresh(1, 2, 3), 48.0, 3)
        assert queued == [(3, "thing/a")]
        # A cursor never goes back.
        await write(records.move_cursor, "hook", 1)
        row = await write(records.open_endpoint, "hook", "s", "e")
        assert row.seq == 3
        await bench.close()


@pytest.mark.parametrize(
    ("starts", "ids"),
    [
        ([("a", 7)], {1: "a", 7: "a", 8: "a"}),
        ([("a", 0), ("a", 5)], {1: "a", 5: "a", 6: "a"}),
        ([("a", 0), ("b", 5)], {1: "a", 5: "a", 6: "b"}),
        ([("a", 0), ("b", 5), ("b", 9), ("c", 12)], {5: "a", 6: "b", 12: "b", 13: "c"}),
    ],
)
async def test_an_id_is_of_the_epoch_that_its_event_is_of(
    tmp_path: Path, starts: list[tuple[str, int]], ids: dict[int, str]
) -> None:
    def found(tx: Transaction) -> dict[int, str]:
        records.open_endpoint(tx, "hook", "s", "e")
        delivery_records.queue(tx, "hook", fresh(*ids), 48.0, max(ids))
        letters = {seq: delivery_records.letter(tx, "hook", seq) for seq in ids}
        return {seq: it.epoch for seq, it in letters.items() if it is not None}

    async with trio.open_nursery() as nursery:
        bench = await Bench(tmp_path, [records.migrations]).start(nursery)
        for epoch, head in starts:
            await bench.store.write(records.note_epoch, epoch, head)
        assert await bench.store.write(found) == ids
        await bench.close()
