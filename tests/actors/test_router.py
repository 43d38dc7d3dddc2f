"""The router outlives what one answer meets: a gateway that is busy, a disk that cannot be read."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import httpx
import pytest
import trio

from supervisor.child import Child, State
from supervisor.database import NAME
from supervisor.errors import StoreUnavailable
from supervisor.transaction import Reading
from tests.api.kit import CONFIG, start_request
from tests.appliance import Inside, inside


@asynccontextmanager
async def up(tmp_path: Path, *names: str) -> AsyncIterator[tuple[Inside, httpx.AsyncClient]]:
    """An appliance inside the test, with these gateways up."""
    with trio.fail_after(60):
        async with inside(tmp_path, CONFIG) as appliance, appliance.client() as client:
            for gw_id in names:
                answer = await client.post("/gateway/start", json=start_request(gw_id, "plain"))
                assert answer.status_code == 200, answer.text
            yield appliance, client


def router(appliance: Inside) -> Child:
    gateways = appliance.board.supervisor.child("gateways")
    assert gateways is not None
    child = gateways.service.child("router")  # type: ignore[union-attr]
    assert isinstance(child, Child)
    return child


def actor(appliance: Inside, gw_id: str) -> Child:
    child = appliance.board.members.child(gw_id)
    assert child is not None
    return child


@contextmanager
def locked(appliance: Inside) -> Iterator[None]:
    """Somebody else writes to the database, and takes long."""
    with closing(sqlite3.connect(appliance.folder / NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_a_list_does_not_wait_for_a_gateway_that_is_busy(tmp_path: Path) -> None:
    async with up(tmp_path, "busy", "free") as (appliance, client), trio.open_nursery() as nursery:
        answers = []

        async def stop() -> None:
            answers.append(await client.post("/gateway/stop", json={"gw_id": "busy"}))

        with locked(appliance):
            nursery.start_soon(stop)
            context = actor(appliance, "busy").context
            assert context is not None
            with trio.fail_after(5):
                while context.doing != "StopGateway":
                    await trio.sleep(0.01)
            with trio.fail_after(5):
                listed = await client.get("/gateway/list")
            assert listed.status_code == 200
            rows = {row["gw_id"]: row for row in listed.json()["data"]["gateways"]}
            # Of the busy one, what its row says; of the other, what it says itself.
            assert (rows["busy"]["state"], rows["busy"]["pid"]) == ("up", None)
            assert (rows["free"]["state"], rows["free"]["pid"] is not None) == ("up", True)
            assert answers == []
        with trio.fail_after(10):
            while not answers:
                await trio.sleep(0.02)
        assert answers[0].json()["data"] == {"processing_state": "stopped"}
        assert (router(appliance).restarts, router(appliance).state) == (0, State.RUNNING)


@contextmanager
def unreadable(appliance: Inside) -> Iterator[None]:
    """No connection can be opened, and none is left over."""
    database = appliance.board.database
    while not database._readers.empty():
        database._readers.get_nowait().close()
    aside = database.path.with_suffix(".aside")
    database.path.rename(aside)
    try:
        yield
    finally:
        aside.rename(database.path)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/gateway/list", None),
        ("GET", "/gateway/status?gw_id=absent", None),
        ("POST", "/gateway/stop", {"gw_id": "absent"}),
        ("POST", "/gateway/command?gw_id=absent", {"command": "x"}),
    ],
)
async def test_a_read_that_fails_is_told_to_the_one_who_asked_alone(
    tmp_path: Path, method: str, path: str, body: object
) -> None:
    async with up(tmp_path, "gw") as (appliance, client):
        pid = (await client.get("/gateway/status?gw_id=gw")).json()["data"]["pid"]
        with unreadable(appliance):
            for _ in range(10):
                answer = await client.request(method, path, json=body)
                assert answer.status_code == 507, answer.text
                assert "cannot be opened" in answer.json()["error"]["message"]
            # Who needs no read is answered.
            status = (await client.get("/gateway/status?gw_id=gw")).json()["data"]
            assert (status["state"], status["pid"]) == ("up", pid)
        assert (await client.get("/gateway/list")).status_code == 200
        assert (router(appliance).restarts, router(appliance).state) == (0, State.RUNNING)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_CANTOPEN, "cannot be opened"),
        (sqlite3.SQLITE_IOERR, "the disk fails"),
        (sqlite3.SQLITE_IOERR_READ, "the disk fails"),
        (sqlite3.SQLITE_CORRUPT, "damaged"),
    ],
)
async def test_what_a_read_meets_on_the_disk_is_told_in_words(
    tmp_path: Path, code: int, words: str
) -> None:
    def meets(_db: Reading) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = code
        raise error

    async with up(tmp_path) as (appliance, _client):
        with pytest.raises(StoreUnavailable, match=words):
            await appliance.board.store.read(meets)


async def test_a_query_that_is_wrong_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    async with up(tmp_path) as (appliance, _client):
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await appliance.board.store.read(lambda db: db.one("SELECT 1 FROM nowhere"))


async def test_an_actor_that_restarts_while_the_disk_refuses_comes_back(tmp_path: Path) -> None:
    """And goes on with what it was: its row can wait."""
    async with up(tmp_path, "gw") as (appliance, client):
        connection = appliance.board.database.connection
        connection.execute("PRAGMA query_only = ON")
        for _ in range(3):
            before = actor(appliance, "gw").restarts
            answer = await client.post("/system/actors/gateways/fleet/gw/restart")
            assert answer.status_code == 200, answer.text
            assert answer.json()["state"] == "running"
            assert actor(appliance, "gw").restarts == before + 1
            with trio.fail_after(10):
                while (await client.get("/gateway/status?gw_id=gw")).json()["data"]["pid"] is None:
                    await trio.sleep(0.02)
        assert "quarantined" not in appliance.log.read_text()
        connection.execute("PRAGMA query_only = OFF")
        with trio.fail_after(20):
            while (await client.get("/healthz")).json()["problems"]:
                await trio.sleep(0.05)
        answer = await client.post("/gateway/stop", json={"gw_id": "gw"})
        assert answer.json()["data"] == {"processing_state": "stopped"}
