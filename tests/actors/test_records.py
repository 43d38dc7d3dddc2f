"""Gateways and recordings in a real store: what is kept is what comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from actors.gateway import records
from actors.gateway.machine import State
from actors.gateway.messages import RecordingFinished
from actors.gateway.records import Record
from supervisor.transaction import Transaction
from tests.supervisor.kit import Bench


def record(gw_id: str = "gw01", state: State = State.UP, **more: object) -> Record:
    whole: dict[str, object] = {
        "gw_id": gw_id,
        "state": state,
        "main_app": "recording",
        "room": "Sala «Blu»",
        "request": {"gw_id": gw_id, "loop": True, "webrtc_domain": {"a": [1, None]}},
        "start_key": "k1",
        "slot": 3,
        "node": "here",
        "detail": "",
        "session": "s1",
        "recorded": 12.5,
        "transcript": 40,
        "restarts": 2,
        "changed": "2026-01-01T00:00:00.000000Z",
        **more,
    }
    return Record(**whole)  # type: ignore[arg-type]


@asynccontextmanager
async def store(folder: Path) -> AsyncIterator[Bench]:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            bench = await Bench(folder, [records.migrations]).start(nursery)
            yield bench
            await bench.close()


async def save(bench: Bench, *rows: Record) -> None:
    for row in rows:
        await bench.store.write(records.save, row)


@pytest.mark.parametrize("state", State)
async def test_a_row_comes_back_as_it_was(tmp_path: Path, state: State) -> None:
    async with store(tmp_path) as bench:
        kept = record(state=state, start_key=None, slot=None if state is State.DOWN else 0)
        await save(bench, kept)
        assert await bench.store.read(records.load, "gw01") == kept
        assert await bench.store.read(records.load, "gw02") is None


async def test_saving_again_replaces(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        await save(bench, record(), record(state=State.DOWN, detail="over"))
        found = await bench.store.read(records.load, "gw01")
        assert found is not None
        assert (found.state, found.detail) == (State.DOWN, "over")


async def test_a_change_and_its_event_are_one(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        await bench.store.write(
            records.save_and_tell, record(), "gateway.started", {"main_app": "recording"}
        )
        (event,) = bench.published
        assert (event.type, event.subject) == ("gateway.started", "gateway/gw01")

        def fails(tx: Transaction) -> None:
            records.save_and_tell(tx, record(detail="never"), "gateway.died", {})
            raise ValueError("after")

        with pytest.raises(ValueError, match="after"):
            await bench.store.write(fails)
        found = await bench.store.read(records.load, "gw01")
        assert found is not None
        assert found.detail == ""
        assert len(bench.published) == 1


async def test_live_are_all_that_are_not_down(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        await save(
            bench,
            *(record(f"g-{s.value}", s, slot=i) for i, s in enumerate(State)),
            record("other", State.UP, main_app="baresip"),
        )
        live = await bench.store.read(records.live)
        names = {row[0] for row in live}
        assert names == {f"g-{s.value}" for s in State if s is not State.DOWN} | {"other"}
        assert await bench.store.read(records.live_of, "baresip") == ["other"]
        assert "g-down" not in await bench.store.read(records.live_of, "recording")


async def test_pages_in_the_order_of_ids(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        await save(
            bench,
            *(record(f"g{i:02d}", State.DOWN if i % 3 else State.UP) for i in range(10)),
        )

        async def page(after: str, limit: int, state: str | None = None) -> list[str]:
            found = await bench.store.read(records.page, after, limit, state)
            return [r.gw_id for r in found]

        assert await page("", 4) == ["g00", "g01", "g02", "g03"]
        assert await page("g03", 4) == ["g04", "g05", "g06", "g07"]
        assert await page("g07", 4) == ["g08", "g09"]
        assert await page("g09", 4) == []
        assert await page("", 10, "up") == ["g00", "g03", "g06", "g09"]
        assert await page("g00", 2, "down") == ["g01", "g02"]


def finished(path: str, seconds: float, session: str = "s1") -> RecordingFinished:
    return RecordingFinished(f"{path}.dump", session, path, seconds, 1000, None)


async def test_recordings_add_up_to_the_session_and_once_each(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        gateway = record()
        await save(bench, gateway)

        async def add(done: RecordingFinished) -> float:
            return await bench.store.write(records.add_recording, done, gateway, "none")

        assert await add(finished("/r/a.wav", 2.0)) == 2.0
        assert await add(finished("/r/b.wav", 3.5)) == 5.5
        assert await add(finished("/r/b.wav", 3.5)) == 5.5
        assert await add(finished("/r/old.wav", 60.0, "s0")) == 5.5
        found = await bench.store.read(records.load, "gw01")
        assert found is not None
        assert found.recorded == 5.5
        told = [e.type for e in bench.published]
        assert told == ["gateway.recording_finished"] * 4


async def test_transcripts_from_pending_to_done_or_failed(tmp_path: Path) -> None:
    async with store(tmp_path) as bench:
        gateway = record()
        for path, seconds in (("/r/a.wav", 2.0), ("/r/b.wav", 3.0)):
            await bench.store.write(
                records.add_recording, finished(path, seconds), gateway, "pending"
            )
        await bench.store.write(records.add_recording, finished("/r/c.wav", 1.0), gateway, "none")
        read = bench.store.read
        assert await read(records.pending_transcripts, "gw01") == [
            ("/r/a.wav", 2.0),
            ("/r/b.wav", 3.0),
        ]
        assert await read(records.with_pending_transcripts) == ["gw01"]
        await bench.store.write(records.set_transcript, gateway, "/r/a.wav", "done", {"file": "x"})
        assert await read(records.transcripts, "gw01", "s1") == {
            "/r/a.wav": (2.0, 100),
            "/r/b.wav": (3.0, 0),
        }
        await bench.store.write(records.set_transcript, gateway, "/r/b.wav", "failed", {})
        assert await read(records.pending_transcripts, "gw01") == []
        assert [e.type for e in bench.published][-2:] == [
            "gateway.transcript_done",
            "gateway.transcript_failed",
        ]


async def test_finishing_a_recording_again_does_not_undo_its_transcript(tmp_path: Path) -> None:
    """After a crash between the row and the removal of the dumps."""
    async with store(tmp_path) as bench:
        gateway = record()
        done = finished("/r/a.wav", 2.0)
        await bench.store.write(records.add_recording, done, gateway, "pending")
        await bench.store.write(records.set_transcript, gateway, "/r/a.wav", "done", {})
        await bench.store.write(records.add_recording, done, gateway, "pending")
        assert await bench.store.read(records.pending_transcripts, "gw01") == []


async def test_only_what_is_down_for_long_is_forgotten_and_a_step_at_a_time(
    tmp_path: Path,
) -> None:
    async with store(tmp_path) as bench:
        old, new = "2026-01-01T00:00:00.000000Z", "2026-06-01T00:00:00.000000Z"
        await save(
            bench,
            *(record(f"old{i}", State.DOWN, changed=old) for i in range(3)),
            record("live", State.UP, changed=old),
            record("new", State.DOWN, changed=new),
        )
        before = "2026-03-01T00:00:00.000000Z"
        folder = tmp_path / "gateways"
        for name in ("old0", "new"):
            (folder / name).mkdir(parents=True)
        forget = records.forget_old(folder)
        assert await bench.store.write(forget, before, 2) == 2
        assert await bench.store.write(forget, before, 2) == 1
        assert [path.name for path in folder.iterdir()] == ["new"]
        left = await bench.store.read(records.page, "", 10, None)
        assert [r.gw_id for r in left] == ["live", "new"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "00:00:00"), (0.99, "00:00:00"), (61.5, "00:01:01"), (360_000.0, "100:00:00")],
)
def test_a_duration_as_the_contract_shows_it(seconds: float, text: str) -> None:
    assert records.clock_text(seconds) == text


@pytest.mark.parametrize("state", State)
def test_up_is_only_what_is_up(state: State) -> None:
    view = records.view(record(state=state))
    assert view.gw_state == ("up" if state is State.UP else "down")
    assert view.state == state.value
    assert view.transcript_progress == "40%"
    assert view.recording_duration == "00:00:12"
