"""HEAD: what a GET would begin with, and no more of it."""

from __future__ import annotations

import pytest

from tests.api.raw import raw, request
from tests.appliance import Appliance


async def test_the_head_of_a_stream_is_all_there_is_and_comes_at_once(shared: Appliance) -> None:
    async with shared.client(timeout=5.0) as client:
        before = (await client.get("/system/tree")).json()["counts"]["subscribers"]
        for _ in range(3):
            answer = await client.head("/events?since=0")
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.content == b""
        assert (await client.get("/system/tree")).json()["counts"]["subscribers"] == before
        assert (await client.head("/events?since=nonsense")).status_code == 400
    async with shared.client(token=None, timeout=5.0) as client:
        assert (await client.head("/events")).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/version", "/gateway/list", "/nowhere"])
async def test_a_head_has_the_status_and_the_length_but_no_body(
    shared: Appliance, path: str
) -> None:
    async with raw(shared) as connection:
        await connection.send(request(shared, "HEAD", path))
        head = await connection.head()
        assert int(head.headers["content-length"]) > 0
        # On the same connection: a body would stand before the next answer.
        await connection.send(request(shared, "GET", path))
        answer = await connection.answer()
        assert answer.status == head.status
        assert answer.body.startswith(b"{")
