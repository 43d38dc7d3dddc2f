"""What needs no token, on an appliance that just started."""

from __future__ import annotations

from pathlib import Path

from tests.appliance import running

OPEN = ["/healthz", "/health", "/readyz", "/version", "/openapi.json", "/docs"]


async def test_open_pages_need_no_token(tmp_path: Path) -> None:
    async with running(tmp_path) as appliance, appliance.client(token=None) as client:
        for path in OPEN:
            answer = await client.get(path)
            assert answer.status_code == 200, path
        assert (await client.get("/health")).json() == {"status": "healthy"}
        assert (await client.get("/healthz")).json()["problems"] == []
        assert (await client.get("/readyz")).json() == {"ready": True, "waiting": []}
        assert (await client.get("/version")).json()["boot"] == 1
        assert await appliance.stop() == 0
