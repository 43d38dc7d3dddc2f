"""Calls in progress in a real store: the log tells an end of each, whatever came between."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from sqlite_utils import Migrations

from actors.gateway import call_records, records
from actors.gateway.machine import State
from actors.gateway.messages import Json
from supervisor.database import Database
from supervisor.transaction import Reading
from tests.actors.test_records import record, save, store
from tests.supervisor.kit import Bench

PEER = "sip:caller@127.0.0.1:5099"


def facts(call_id: str = "c1") -> Json:
    return {"call_id": call_id, "direction": "incoming", "peer": PEER}


async def tell(bench: Bench, kind: str, data: Json | None = None, gw_id: str = "gw01") -> None:
    await bench.store.write(
        records.tell_all, gw_id, [(f"gateway.{kind}", facts() if data is None else data)]
    )


async def kept(bench: Bench, gw_id: str = "gw01") -> list[call_records.KeptCall]:
    return await bench.store.read(call_records.kept, gw_id)


def closed(bench: Bench) -> list[dict[str, Any]]:
    """The data of all ends that were told."""
    return [
        msgspec.json.decode(e.data, type=dict[str, Any])
        for e in bench.published
        if e.type == "gateway.call_closed"
    ]


async def test_a_row_lives_as_long_as_its_call(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        await tell(bench, "call_ringing")
        (ringing,) = await kept(bench)
        assert ringing[:3] == ("c1", "incoming", PEER)
        assert ringing.established is None

        await tell(bench, "call_ringing")
        await tell(bench, "dtmf", {**facts(), "key": "1"})
        await tell(bench, "call_established")
        (talking,) = await kept(bench)
        assert talking.since == ringing.since
        assert talking.established is not None

        await tell(bench, "call_closed", {**facts(), "reason": "", "seconds": 1.0})
        assert await kept(bench) == []


async def test_what_is_left_is_closed_once_as_long_as_is_known(tmp_path: Path) -> None:
    """Up to the last that was heard of the gateway."""
    async with store(tmp_path) as bench:
        await tell(bench, "call_established")
        await tell(bench, "call_ringing", facts("c2"))
        await tell(bench, "rtp_statistics", {**facts(), "rtp": {}})
        await tell(bench, "call_established", gw_id="another")
        first, last = bench.published[0].ts, bench.published[2].ts
        for _ in range(2):
            await bench.store.write(call_records.close_all, "gw01", "the appliance ended")
        lasted = call_records.seconds_between(first, last)
        assert lasted > 0
        end = {"reason": "the appliance ended"}
        talked, rang = closed(bench)
        assert talked == {**facts(), **end, "seconds": talked["seconds"]}
        # The row and the event are written a moment apart.
        assert abs(talked["seconds"] - lasted) < 0.1
        assert rang == {**facts("c2"), **end, "seconds": 0.0}
        assert await kept(bench) == []
        assert len(await kept(bench, "another")) == 1
        assert await bench.store.read(call_records.with_calls) == ["another"]


async def test_an_end_that_is_known_is_told_as_it_was(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        await tell(bench, "call_established")
        await tell(bench, "call_established", facts("c2"))
        known = {**facts(), "reason": "bye", "seconds": 7.0}
        await bench.store.write(
            records.end_calls, "gw01", [("gateway.call_closed", known)], "the gateway ended"
        )
        assert [(c["call_id"], c["reason"]) for c in closed(bench)] == [
            ("c1", "bye"),
            ("c2", "the gateway ended"),
        ]


async def test_a_forgotten_gateway_leaves_no_calls(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        await save(bench, record(state=State.DOWN, changed="2020-01-01T00:00:00.000000Z"))
        await tell(bench, "call_established")
        forget = records.forget_old(tmp_path / "gateways")
        assert await bench.store.write(forget, "2026-01-01T00:00:00.000000Z", 10) == 1
        assert await kept(bench) == []


async def test_a_database_from_before_there_were_rows_of_calls(tmp_path: Path) -> None:
    """All that is in it stays."""
    before = Migrations("gateway")
    before._migrations = records.migrations._migrations[:1]
    database = Database(tmp_path, [before])
    with closing(database):
        database.connection.execute(
            "INSERT INTO gateways VALUES ('gw01', 'up', 'recording', 'hall', '{}', NULL, 3, 'here',"
            " '', 's1', 2.5, 0, 0, '2026-01-01T00:00:00.000000Z')"
        )
        database.connection.execute(
            "INSERT INTO recordings VALUES ('/r/a.wav', 'gw01', 's1', 2.5, 9, 'none', 'then')"
        )
    async with store(tmp_path) as bench:
        row, calls = await bench.store.read(records.load_all, "gw01")
        assert row is not None
        assert (row.state, row.slot, row.recorded, calls) == (State.UP, 3, 2.5, [])

        def paths(db: Reading) -> object:
            return db.all("SELECT path FROM recordings")

        assert await bench.store.read(paths) == [("/r/a.wav",)]
        await tell(bench, "call_established")
        assert len(await kept(bench)) == 1
