"""Signals come through whatever a reload, or the guardian, is at."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import trio

from actors.reconcile import Reconciler
from config.model import Config
from supervisor import guardian
from tests.api.kit import CONFIG, is_plain, start_request
from tests.appliance import Appliance, inside, running
from tests.flows.kit import Fleet, none_left

TOKEN = "a-token-that-is-read-from-a-file"


def from_a_pipe(appliance: Appliance) -> Path:
    """Its file asks for a token from a pipe that nobody writes to."""
    pipe = appliance.home / "pipe"
    os.mkfifo(pipe)
    entry = {"name": "piped", "token": f"${{file:{pipe}}}", "scopes": ["*"]}
    appliance.write_config({"auth": {"tokens": [entry]}})
    return pipe


async def test_a_reload_that_would_read_from_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance, Fleet(appliance) as it:
        pipe = from_a_pipe(appliance)
        with trio.fail_after(5):
            appliance.signal(signal.SIGHUP)
            event = await it.until(lambda e: e["type"] == "config.refused", 0, "refusal")
            answer = await it.client.post("/system/reload", json={})
        (problem,) = event["data"]["problems"]
        assert f"{pipe} is not a file" in problem
        assert f"{appliance.config_file}:" in problem
        is_plain(answer, 422, "invalid")


async def test_a_file_that_is_a_pipe_itself_is_refused_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance, Fleet(appliance) as it:
        appliance.config_file.unlink()
        os.mkfifo(appliance.config_file)
        with trio.fail_after(5):
            appliance.signal(signal.SIGHUP)
            await it.until(lambda e: e["type"] == "config.refused", 0, "refusal")
            assert await appliance.stop() == 0


async def test_it_ends_in_its_grace_during_a_reload_that_hangs(tmp_path: Path) -> None:
    """The file system of the file hangs: nobody waits for it longer than for anything else."""
    begun, gate = threading.Event(), threading.Event()

    def hangs() -> Config:
        begun.set()
        gate.wait(60)
        raise OSError("it came back")

    try:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                async with inside(tmp_path, CONFIG) as appliance, appliance.client() as client:
                    config = appliance.board.supervisor.child("config")
                    assert config is not None
                    assert isinstance(config.service, Reconciler)
                    config.service._load = hangs
                    nursery.start_soon(appliance.board.reload)
                    assert await trio.to_thread.run_sync(begun.wait, 10)
                    # What else there is goes on meanwhile.
                    answer = await client.post("/gateway/start", json=start_request("gw01"))
                    assert answer.status_code == 200
                    stopped = trio.current_time()
                assert trio.current_time() - stopped < 15
                assert not gate.is_set()
                assert "reload_failed" in appliance.log.read_text()
    finally:
        gate.set()


# -- the guardian -----------------------------------------------------------------------


def guardians(appliance: Appliance) -> list[psutil.Process]:
    script = str(Path(guardian.__file__))
    children = psutil.Process(appliance.pid).children()
    found = []
    for child in children:
        with suppress(psutil.NoSuchProcess):  # a zombie has no command line any more
            if script in child.cmdline():
                found.append(child)
    return found


async def test_a_guardian_that_is_stopped_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance, appliance.client() as client:
        answer = await client.post("/gateway/start", json=start_request("gw01"))
        assert answer.status_code == 200
        (old,) = guardians(appliance)
        old.suspend()
        begun = trio.current_time()
        assert await appliance.stop() == 0
        assert trio.current_time() - begun < 10
        assert not old.is_running()
    await none_left(appliance)


async def test_a_guardian_that_reads_nothing_is_replaced_and_nobody_waits(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance, appliance.client() as client:
        (old,) = guardians(appliance)
        old.suspend()
        # More than the pipe to it holds.
        failed: list[int] = []

        async def cycles(name: str) -> None:
            for _ in range(3):
                answer = await client.post("/gateway/start", json=start_request(name, "plain"))
                failed.extend([answer.status_code] if answer.status_code != 200 else [])
                await client.post("/gateway/stop", json={"gw_id": name, "force": True})

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(cycles, f"gw{number}")
        assert failed == []
        old.kill()
        with trio.fail_after(10):
            while [g.pid for g in guardians(appliance)] in ([], [old.pid]):
                await trio.sleep(0.05)
        answer = await client.post("/gateway/start", json=start_request("after", "plain"))
        assert answer.status_code == 200
        assert await appliance.stop() == 0
