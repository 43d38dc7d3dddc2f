"""Recordings that cannot be finished, and are tried again by themselves.

The appliance, its store and ffmpeg are real; the waiting times are short.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from actors.gateway import media, recording, records
from actors.gateway.messages import RelaunchNow
from supervisor.backoff import Backoff
from supervisor.bus import load_events
from tests.actors.test_leftovers import up
from tests.actors.test_recording import dump
from tests.appliance import Inside

CALL = "2026-1-2-03-04-05-1"


class Told:
    """The data of an appliance's events of some types, as they come."""

    def __init__(self, appliance: Inside) -> None:
        self.board = appliance.board
        self.at = 0

    async def next(self, *kinds: str) -> tuple[str, dict[str, Any]]:
        with trio.fail_after(20):
            while True:
                await self.board.log.past(self.at)
                for event in await self.board.store.read(load_events, self.at, 1000):
                    self.at = event.seq
                    if event.type in kinds:
                        return event.type, msgspec.json.decode(event.data, type=dict)


FINISHED, FAILED = "gateway.recording_finished", "gateway.recording_failed"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "AGAIN", Backoff(first=0.05, cap=0.1))
    monkeypatch.setattr(media, "TRIES", 3)


@asynccontextmanager
async def recorded(tmp_path: Path) -> AsyncIterator[tuple[Inside, Told, Path]]:
    """A gateway that is up, and a call's files, not finished yet."""
    async with up(tmp_path, {"gateways": {"linger": 0.1}}) as (appliance, _client, row):
        folder = appliance.folder / "recordings" / "gw" / row.session
        folder.mkdir(parents=True)
        yield appliance, Told(appliance), dump(folder, 1.0, name=CALL)


async def stop(appliance: Inside) -> None:
    """What makes a gateway look for what is to be finished."""
    async with appliance.client() as client:
        assert (await client.post("/gateway/stop", json={"gw_id": "gw"})).status_code == 200


async def test_a_disk_that_was_full_for_a_moment(tmp_path: Path) -> None:
    async with recorded(tmp_path) as (appliance, told, heard):
        # Removed with what was written, as every half file is: the second time there is room.
        recording.target(heard).with_suffix(".part").symlink_to("/dev/full")
        await stop(appliance)
        kind, data = await told.next(FINISHED, FAILED)
        assert (kind, data["file"], data["again"]) == (FAILED, str(heard), True)
        assert "No space left" in data["reason"]
        kind, data = await told.next(FINISHED, FAILED)
        assert (kind, data["file"]) == (FINISHED, str(recording.target(heard)))
        while heard.exists():
            await trio.sleep(0.01)


async def test_what_cannot_be_done_is_given_up_until_the_next_occasion(tmp_path: Path) -> None:
    """Told when it begins and when it is given up; a gateway that is down waits for that."""
    async with recorded(tmp_path) as (appliance, told, heard):
        hindrance = recording.target(heard).with_suffix(".part")
        hindrance.mkdir()
        await stop(appliance)
        for tries, again in ((1, True), (3, False)):
            kind, data = await told.next(FINISHED, FAILED)
            assert (kind, data["tries"], data["again"]) == (FAILED, tries, again)
        assert heard.exists()
        while appliance.board.members.child("gw") is not None:
            await trio.sleep(0.01)
        hindrance.rmdir()
        async with appliance.client() as client:
            body = {"gw_id": "gw", "room": "hall", "main_app": "plain"}
            assert (await client.post("/gateway/start", json=body)).status_code == 200
        assert (await told.next(FINISHED, FAILED))[0] == FINISHED


async def test_a_recording_that_the_database_refuses_is_kept_and_tried_again(
    tmp_path: Path,
) -> None:
    """The file is made, and its row cannot be written for a moment."""
    async with recorded(tmp_path) as (appliance, told, heard):
        board = appliance.board
        child = board.members.child("gw")
        assert child is not None
        board.database.connection.execute("PRAGMA query_only = ON")
        # It looks for what is to be finished, and writes nothing else.
        child.ref.tell(RelaunchNow(1))
        with trio.fail_after(20):
            while board.store.failing is None:
                await trio.sleep(0.01)
        assert heard.exists()
        board.database.connection.execute("PRAGMA query_only = OFF")
        assert (await told.next(FINISHED))[1]["file"] == str(recording.target(heard))
        row = await board.store.read(records.load, "gw")
        assert row is not None
        assert row.recorded == pytest.approx(1.0, abs=0.1)
