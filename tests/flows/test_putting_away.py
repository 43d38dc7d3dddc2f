"""Actors and port slots of gateways that never came up, or went down, are given back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from actors.gateway.messages import Idle, LingerOver, StartGateway, StartWithSlot
from supervisor.ref import AnyRef
from tests.api.kit import CONFIG, start_request
from tests.api.raw import raw, request
from tests.appliance import Inside, inside, laid_over, ports

ROOM = 3


def config(linger: float = 0.1) -> dict[str, Any]:
    """Ports for a few gateways."""
    first = ports(9 * ROOM)
    ranges = {
        "sip": {"first": first, "last": first + 2 * ROOM - 1},
        "control": {"first": first + 2 * ROOM, "last": first + 3 * ROOM - 1},
        "rtp": {"first": first + 3 * ROOM, "last": first + 9 * ROOM - 1},
        "rtp_per_gateway": 6,
    }
    return laid_over(CONFIG, {"gateways": {"ports": ranges, "linger": linger}})


@asynccontextmanager
async def small(
    tmp_path: Path, linger: float = 0.1
) -> AsyncIterator[tuple[Inside, httpx.AsyncClient]]:
    """An appliance inside the test with room for a few gateways, and a client."""
    with trio.fail_after(60):
        async with inside(tmp_path, config(linger)) as appliance, appliance.client() as client:
            yield appliance, client


async def start(client: httpx.AsyncClient, gw_id: str) -> httpx.Response:
    return await client.post("/gateway/start", json=start_request(gw_id, "plain"))


async def stop(client: httpx.AsyncClient, gw_id: str) -> None:
    answer = await client.post("/gateway/stop", json={"gw_id": gw_id, "force": True})
    assert answer.json()["data"] == {"processing_state": "stopped"}


async def state(client: httpx.AsyncClient, gw_id: str) -> str | None:
    """What its status says, or None when it never was."""
    answer = await client.get(f"/gateway/status?gw_id={gw_id}")
    return None if answer.status_code == 404 else str(answer.json()["data"]["state"])


async def only(appliance: Inside, *names: str) -> None:
    """Wait until just these have an actor."""
    board = appliance.board
    with trio.fail_after(20):
        while {child.spec.id for child in board.members.children()} != set(names):
            await trio.sleep(0.02)
    assert set(board.directory.refs) == set(names)


async def all_stopped(appliance: Inside, client: httpx.AsyncClient) -> None:
    """Stop what is up, or comes up meanwhile, until nothing has an actor."""
    with trio.fail_after(20):
        while children := list(appliance.board.members.children()):
            for gw_id in [child.spec.id for child in children]:
                if await state(client, gw_id) == "up":
                    await stop(client, gw_id)
            await trio.sleep(0.02)


async def room_for_all(appliance: Inside, client: httpx.AsyncClient) -> None:
    """As many as there are slots can be started, and no more."""
    for number in range(ROOM):
        answer = await start(client, f"room{number}")
        assert answer.status_code == 200, answer.text
    assert (await start(client, "too-many")).status_code == 503
    for number in range(ROOM):
        await stop(client, f"room{number}")
    await only(appliance)


async def test_starts_that_the_disk_refuses_keep_nothing(tmp_path: Path) -> None:
    async with small(tmp_path) as (appliance, client):
        connection = appliance.board.database.connection
        connection.execute("PRAGMA query_only = ON")
        for number in range(ROOM):
            assert (await start(client, f"refused{number}")).status_code == 507
        # Put away while the disk still refuses: it takes no write.
        await only(appliance)
        assert (await start(client, "refused")).status_code == 507
        connection.execute("PRAGMA query_only = OFF")
        await only(appliance)
        assert await state(client, "refused") is None
        await room_for_all(appliance, client)


async def test_starts_whose_clients_hang_up_keep_nothing(tmp_path: Path) -> None:
    """At whichever moment: what came up stays up, all else is put away."""
    async with small(tmp_path) as (appliance, client):
        names = [f"gone{number}" for number in range(24)]
        for number, gw_id in enumerate(names):
            body = httpx.Request("POST", appliance.url, json=start_request(gw_id, "plain")).content
            async with raw(appliance) as one:
                await one.send(request(appliance, "POST", "/gateway/start", body))
                await trio.sleep(number * 0.0007)
            if number % 3 == 2:
                await all_stopped(appliance, client)
        await room_for_all(appliance, client)


async def test_one_that_could_not_say_that_it_is_idle_says_so_again(tmp_path: Path) -> None:
    async with small(tmp_path) as (appliance, client):
        services = appliance.board.services
        router, services.router = services.router, None
        assert (await start(client, "gw")).status_code == 200
        await stop(client, "gw")
        ref = found(appliance, "gw")
        before = handled(ref)
        with trio.fail_after(10):
            while handled(ref) < before + 3:
                await trio.sleep(0.02)
        await only(appliance, "gw")
        services.router = router
        await only(appliance)
        assert await state(client, "gw") == "down"


def found(appliance: Inside, gw_id: str) -> AnyRef:
    ref = appliance.board.directory.find(gw_id)
    assert ref is not None
    return ref


def handled(ref: AnyRef) -> int:
    mailbox = ref._cell.mailbox
    assert mailbox is not None
    return mailbox.handled


async def test_a_start_right_behind_the_end_of_the_wait_is_not_put_away(tmp_path: Path) -> None:
    """The actor takes both in one go, and the router hears of idleness while it starts."""
    async with small(tmp_path, 60.0) as (appliance, client):
        assert (await start(client, "gw")).status_code == 200
        await stop(client, "gw")
        ref = found(appliance, "gw")
        asked = StartGateway("gw", "hall", "plain", {"gw_id": "gw"}, None)
        ref.tell(LingerOver(1))
        answer = await ref.ask(StartWithSlot(asked, 0))
        assert answer.processing_state == "working"
        assert await state(client, "gw") == "up"
        await only(appliance, "gw")


async def test_what_was_said_before_a_start_counts_no_more(tmp_path: Path) -> None:
    async with small(tmp_path, 60.0) as (appliance, client):
        assert (await start(client, "gw")).status_code == 200
        await stop(client, "gw")
        said = trio.current_time()
        assert (await start(client, "gw")).status_code == 200
        pid = (await client.get("/gateway/status?gw_id=gw")).json()["data"]["pid"]
        appliance.board.router.tell(Idle("gw", said))
        assert (await client.get("/gateway/list")).status_code == 200
        status = (await client.get("/gateway/status?gw_id=gw")).json()["data"]
        assert (status["state"], status["pid"]) == ("up", pid)
        assert "gw" in appliance.board.directory.refs
        await stop(client, "gw")
        appliance.board.router.tell(Idle("gw", trio.current_time()))
        await only(appliance)
