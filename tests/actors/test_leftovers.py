"""What is left of recordings, and what their text cannot be written to."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from actors.gateway import call_records, records
from actors.gateway.messages import RecordingFinished
from actors.gateway.records import Record
from actors.retention import Keeper
from supervisor.bus import load_events
from supervisor.spec import Cause, StopReason
from supervisor.system import Happening
from supervisor.transaction import Transaction
from tests.api.kit import CONFIG, start_request
from tests.appliance import Inside, inside, laid_over

HELLO = {"gateways": {"transcribe": {"command": ["echo", "hello"]}}}


@asynccontextmanager
async def up(
    tmp_path: Path, config: dict[str, Any]
) -> AsyncIterator[tuple[Inside, httpx.AsyncClient, Record]]:
    """A gateway that is up inside the test, and its row."""
    with trio.fail_after(60):
        config = laid_over(CONFIG, config)
        async with inside(tmp_path, config) as appliance, appliance.client() as client:
            answer = await client.post("/gateway/start", json=start_request("gw", "plain"))
            assert answer.status_code == 200
            row = await appliance.board.store.read(records.load, "gw")
            assert row is not None
            yield appliance, client, row


async def recorded(appliance: Inside, row: Record, name: str = "call-1.wav") -> Path:
    """A finished recording of it whose text is still to be written."""
    folder = appliance.folder / "recordings" / "gw" / row.session
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(b"RIFF")
    done = RecordingFinished(f"{path}.dump", row.session, str(path), 2.0, 4, None)
    await appliance.board.store.write(records.add_recording, done, row, "pending")
    return path


async def told(appliance: Inside, kind: str) -> dict[str, Any]:
    """The data of the first event of a type, when it has come."""
    board = appliance.board
    at = 0
    with trio.fail_after(20):
        while True:
            await board.log.past(at)
            for event in await board.store.read(load_events, at, 1000):
                at = event.seq
                if event.type == kind:
                    found: dict[str, Any] = msgspec.json.decode(event.data)
                    return found


@pytest.mark.parametrize("hindrance", ["a folder in its place", "no folder"])
async def test_a_text_that_cannot_be_stored_is_told_and_ends_nothing(
    tmp_path: Path, hindrance: str
) -> None:
    async with up(tmp_path, HELLO) as (appliance, client, row):
        path = await recorded(appliance, row)
        if hindrance == "no folder":
            shutil.rmtree(path.parent)
        else:
            (path.with_suffix(".txt") / "occupied").mkdir(parents=True)
        assert (await client.post("/system/actors/gateways/fleet/gw/restart")).status_code == 200
        failed = await told(appliance, "gateway.transcript_failed")
        assert failed["recording"] == str(path)
        assert failed["reason"].startswith("the text cannot be stored: ")
        child = appliance.board.members.child("gw")
        assert child is not None
        # Once, by hand.
        assert (child.restarts, child.failures) == (1, 0)
        with trio.fail_after(10):
            while True:
                status = (await client.get("/gateway/status?gw_id=gw")).json()["data"]
                if status["gw_state"] == "up":
                    break
                await trio.sleep(0.02)
        assert status["pid"]
        assert await appliance.board.store.read(records.with_pending_transcripts) == []
        assert "crashed" not in appliance.log.read_text()


LONG_AGO = "2020-01-01T00:00:00.000000Z"


async def test_retention_leaves_neither_row_nor_folder(tmp_path: Path) -> None:
    config = laid_over(HELLO, {"retention": {"gateway_days": 1, "recording_days": 1}})
    async with up(tmp_path, config) as (appliance, client, row):
        board = appliance.board
        old = await recorded(appliance, row)
        new = await recorded(appliance, msgspec.structs.replace(row, session="another"))
        for path in (old, new):
            path.with_suffix(".txt").write_text("hello\n")
        answer = await client.post("/gateway/stop", json={"gw_id": "gw"})
        assert answer.status_code == 200
        with trio.fail_after(20):
            while board.members.child("gw") is not None:
                await trio.sleep(0.02)
        working = appliance.folder / "gateways" / "gw"
        assert (working / "request.json").exists()
        keeper = board._keeper()
        assert isinstance(keeper, Keeper)

        await keeper.once()
        assert working.exists()
        assert old.exists()

        def age(tx: Transaction) -> None:
            tx.execute("UPDATE gateways SET changed = ?", (LONG_AGO,))
            tx.execute("UPDATE recordings SET created = ? WHERE path = ?", (LONG_AGO, str(old)))

        await board.store.write(age)
        await keeper.once()
        assert (await client.get("/gateway/status?gw_id=gw")).status_code == 404
        assert not working.exists()
        assert not old.parent.exists()
        assert new.exists()
        assert new.with_suffix(".txt").exists()
        left = await board.store.read(lambda db: db.all("SELECT path FROM recordings"))
        assert left == [(str(new),)]


async def test_a_session_keeps_its_folder_for_as_long_as_it_has_a_recording(
    tmp_path: Path,
) -> None:
    config = laid_over(HELLO, {"retention": {"recording_days": 1}})
    async with up(tmp_path, config) as (appliance, _client, row):
        board = appliance.board
        old, new = [await recorded(appliance, row, f"call-{n}.wav") for n in (1, 2)]
        await board.store.write(
            lambda tx: tx.execute(
                "UPDATE recordings SET created = ? WHERE path = ?", (LONG_AGO, str(old))
            )
        )
        await board._keeper().once()
        assert [path.name for path in old.parent.iterdir()] == [new.name]


async def test_the_calls_of_a_gateway_in_quarantine_are_over(tmp_path: Path) -> None:
    """Nobody else would tell of them until somebody revives it."""
    async with up(tmp_path, HELLO) as (appliance, _client, _row):
        facts = {"call_id": "c1", "direction": "incoming", "peer": "sip:caller@127.0.0.1"}
        rings = ("gateway.call_ringing", facts)
        await appliance.board.store.write(records.tell_all, "gw", [rings])
        happening = Happening("quarantined", "/gateways/fleet/gw", StopReason(Cause.CRASH), 5)
        appliance.board.system.listener(happening)
        closed = await told(appliance, "gateway.call_closed")
        assert (closed["call_id"], closed["reason"]) == ("c1", "its actor is in quarantine")
        assert await appliance.board.store.read(call_records.kept, "gw") == []
