"""Webhooks of a whole appliance: killed at any moment, over TLS, restored from a backup."""

from __future__ import annotations

import functools
import json
import os
import random
import ssl
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.api.kit import make_token
from tests.api.test_tls import certificate
from tests.api.test_webhooks import once
from tests.appliance import ROOT, Appliance, ports, running
from tests.cli.kit import switchboard
from tests.receiver import SECRET, Answer, Got, Receiver, receiver, secret, webhook

Json = dict[str, Any]
CONCURRENCY = 8


async def log_of(appliance: Appliance, kind: str) -> list[Json]:
    """All events of a kind, from the log itself."""
    found: list[Json] = []
    async with appliance.client() as client:
        head = int((await client.get("/version")).json()["head"].rpartition(":")[2])
    async with appliance.ws("since=0&batch=1") as ws:
        while not found or found[-1]["seq"] < head:
            frame = json.loads(await ws.get_message())
            found += [e for e in frame.get("events", [frame]) if "seq" in e]
    return [e for e in found if e["type"].startswith(f"{kind}.")]


class Unsteady:
    """Answers most with a 2xx, some after a while, some with a failure, and some not at all."""

    def __init__(self) -> None:
        self.rng = random.Random(7)

    def __call__(self, _got: Got) -> Answer:
        match self.rng.randrange(8):
            case 0:
                return Answer(503)
            case 1:
                return Answer(cut=True)
            case 2:
                return Answer(hang=True)
            case _:
                return Answer()


async def make_and_revoke(client: httpx.AsyncClient, names: list[str]) -> None:
    """Two events a name; the appliance may be killed meanwhile."""
    for named in names:
        try:
            await client.post("/system/tokens", json={"name": named, "scopes": ["events:ro"]})
            await client.delete(f"/system/tokens/{named}")
        except httpx.HTTPError:
            return


async def test_killed_again_and_again_it_tells_everything_and_in_order(tmp_path: Path) -> None:
    hook = webhook("", "token", attempts=1000, timeout=0.5, concurrency=CONCURRENCY)
    rounds = 4
    async with receiver() as it:
        it.answer = Unsteady()
        config = {"webhooks": {"hook": {**hook, "url": it.url}}}
        async with running(tmp_path, config) as appliance:
            for number in range(rounds):
                async with appliance.client() as client, trio.open_nursery() as nursery:
                    for lane in range(3):
                        names = [f"t{number}-{lane}-{i}" for i in range(8)]
                        nursery.start_soon(make_and_revoke, client, names)
                    # In the midst of it: some are answered, some are under way, some wait.
                    await it.took(len(it.taken) + 5)
                    await appliance.kill9()
                await appliance.start()
            it.answer = lambda _got: Answer()
            async with appliance.client() as client:
                await make_token(client, "events:ro", named="last")
                await once(client, lambda h: h["pending"] == 0 and h["behind"] == 0)
            # Without the admin's, which was made before the webhook was there.
            told = [e["seq"] for e in await log_of(appliance, "token")][1:]
            assert set(told) == {got.seq for got in it.taken}
            # Again only what was under way when it was killed, and under the same id.
            times = Counter(got.id for got in it.taken)
            assert len(times) == len(told)
            assert sum(times.values()) - len(times) <= rounds * CONCURRENCY
            for subject in {got.subject for got in it.taken}:
                assert it.of(subject) == sorted(it.of(subject))


async def test_a_receiver_that_is_not_there_yet_gets_all_after_a_restart(tmp_path: Path) -> None:
    down = Receiver()
    config = {"webhooks": {"hook": webhook(down, "token", attempts=1000)}}
    async with running(tmp_path, config) as appliance:
        async with appliance.client() as client:
            for number in range(20):
                await make_token(client, "events:ro", named=f"t{number}")
        await appliance.kill9()
        async with receiver(down.port) as it:
            await appliance.start()
            await it.took(20)
            assert {got.subject for got in it.taken} == {f"token/t{n}" for n in range(20)}
            assert await appliance.stop() == 0
            assert len(it.taken) == 20


async def test_after_a_restore_it_goes_on_and_tells_of_the_gap(tmp_path: Path) -> None:
    async with receiver() as it:
        config = {"webhooks": {"hook": webhook(it, "token", "webhook.gap")}}
        async with running(tmp_path, config) as appliance:
            async with appliance.client() as client:
                await make_token(client, "events:ro", named="kept")
                await it.took(1)
                await once(client, lambda h: h["pending"] == 0)
                backup = (await client.post("/system/backup")).json()["file"]
                await make_token(client, "events:ro", named="lost")
                await it.took(2)
            assert await appliance.stop() == 0
            done = await switchboard("restore", backup, config=appliance.config_file)
            assert done.status == 0, done.err
            await appliance.start()
            async with appliance.client() as client:
                await make_token(client, "events:ro", named="new")
                await it.took(4)
                await once(client, lambda h: h["pending"] == 0 and h["behind"] == 0)
            subjects = [got.subject for got in it.taken]
            assert sorted(subjects[2:]) == ["token/new", "webhook/hook"]
            assert len({got.id for got in it.taken}) == 4
            (gap,) = [got.json for got in it.taken if got.subject == "webhook/hook"]
            assert gap["data"]["reason"] == "epoch"


async def test_a_certificate_is_verified(tmp_path: Path) -> None:
    files = certificate(tmp_path, "nobody")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["certificate"], files["key"])
    async with receiver(tls=context) as it:
        config = {"webhooks": {"hook": webhook(it, "token", attempts=1000)}}
        async with running(tmp_path, config) as appliance:
            async with appliance.client() as client:
                await make_token(client, "events:ro", named="one")
                seen = await once(client, lambda h: h["last_error"] != "")
                assert "CERTIFICATE_VERIFY_FAILED" in seen["last_error"]
            assert it.got == []
            assert await appliance.stop() == 0
            # The operator adds it to the system's.
            appliance.env["SSL_CERT_FILE"] = files["certificate"]
            await appliance.start()
            assert [got.subject for got in await it.took(1)] == ["token/one"]


async def test_the_receiver_of_the_readme_verifies_what_is_sent(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    begin = text.index("    import http.server, os, standardwebhooks")
    lines = text[begin : text.index("`switchboard reload`, then")].splitlines()
    port = ports()
    script = tmp_path / "receiver.py"
    script.write_text("\n".join(line[4:] for line in lines).replace("9000", str(port)))
    hook = webhook(f"http://127.0.0.1:{port}/hooks", "token", attempts=1000)
    env = {**os.environ, "BILLING_SECRET": SECRET, "PYTHONUNBUFFERED": "1"}
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            functools.partial(
                trio.run_process,
                [sys.executable, str(script)],
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        )
        config = {"webhooks": {"billing": hook}}
        async with running(tmp_path, config) as appliance, appliance.client() as client:
            await make_token(client, "events:ro", named="one")
            seen = await once(client, lambda h: h["last_success"] != "", "billing")
            assert seen["dead"] == 0
            printed = (await process.stdout.receive_some(4096)).decode()
            assert "token.created token/one {" in printed
            # One with another key is refused.
            appliance.write_config({"webhooks": {"billing": {"secret": secret("x")}}})
            assert (await client.post("/system/reload")).status_code == 200
            back = (await client.post("/system/webhooks/billing/test")).json()
            assert (back["ok"], back["status"]) == (False, 401)
        process.kill()
