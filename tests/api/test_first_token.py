"""The first token is made once, and nobody can give away more than they have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.kit import CONFIG, is_plain, make_token, name
from tests.appliance import Appliance, laid_over, running

OF_THE_FILE = "a-token-of-the-file-itself"


async def test_after_the_last_one_was_revoked_no_other_is_made(tmp_path: Path) -> None:
    entry = {"name": "operator", "token": OF_THE_FILE, "scopes": ["*"]}
    config = laid_over(CONFIG, {"auth": {"tokens": [entry]}})
    async with running(tmp_path, config) as appliance:
        first = appliance.token
        async with appliance.client() as client:
            assert (await client.delete("/system/tokens/admin")).status_code == 200
        for _ in range(2):
            await appliance.restart()
            assert appliance.token == first
            async with appliance.client(token=first) as client:
                is_plain(await client.get("/system/tree"), 401, "unauthorized")
            async with appliance.client(token=OF_THE_FILE) as client:
                answer = await client.get("/system/tokens")
                assert answer.json() == {"tokens": []}
        async with appliance.client(token=OF_THE_FILE) as client:
            made = await make_token(client, "*", named="admin")
        async with appliance.client(token=made) as client:
            assert (await client.get("/system/tree")).status_code == 200


@pytest.mark.parametrize(
    ("own", "more"),
    [
        (["system:rw"], ["*"]),
        (["system:rw"], ["gateway:ro"]),
        (["system:rw"], ["read:*"]),
        (["system:rw", "gateway:ro"], ["gateway:rw"]),
        (["system:rw", "gateway:ro"], ["gateway:*"]),
        (["system:rw", "gateway:gw01:rw"], ["gateway:rw"]),
        (["system:rw", "read:*"], ["events:rw"]),
        (["system:rw", "events:ro"], ["events:ro", "gateway:ro"]),
    ],
)
async def test_nobody_gives_away_what_they_do_not_have(
    shared: Appliance, own: list[str], more: list[str]
) -> None:
    async with shared.client() as admin:
        token = await make_token(admin, *own)
        wanted = name("more")
        async with shared.client(token=token) as client:
            answer = await client.post("/system/tokens", json={"name": wanted, "scopes": more})
            assert repr(more[-1]) in is_plain(answer, 403, "forbidden")
        listed = (await admin.get("/system/tokens")).json()["tokens"]
        assert wanted not in [entry["name"] for entry in listed]


@pytest.mark.parametrize(
    ("own", "part"),
    [
        (["*"], ["*", "gateway:rw"]),
        (["system:rw"], ["system:rw", "system:ro"]),
        (["system:rw", "gateway:rw"], ["gateway:ro", "gateway:gw01:rw"]),
        (["system:rw", "read:*"], ["events:ro", "read:*"]),
    ],
)
async def test_a_part_of_ones_own_can_be_given(
    shared: Appliance, own: list[str], part: list[str]
) -> None:
    async with shared.client() as admin:
        token = await make_token(admin, *own)
    async with shared.client(token=token) as client:
        given = await make_token(client, *part)
    assert given.startswith("sb_")
