"""Container mode, against a stand-in for the engine's command line.

No engine runs here. A program named `docker` or `podman` (engine.py) keeps the argument lists it
was given and behaves as the real ones do: `run --detach` prints an id and leaves a process that
outlives caller and appliance, `inspect` prints its state, `wait` blocks and prints the exit status,
`logs --follow` follows, `stop --time` is TERM and then KILL, `rm --force` ends and forgets. The
argument lists are pinned word by word in tests/actors/test_container.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from tests.flows.kit import QUICK, Fleet, Json, fleet, script

ENGINE = Path(__file__).with_name("engine.py")
INSIDE = "trap 'exit 0' TERM\necho serving $@\nwhile :; do sleep 0.05; done\n"


class Boxes:
    """The stand-in's side: what it was asked, and what runs in it."""

    def __init__(self, base: Path, word: str) -> None:
        self.base = base
        self.word = word
        text = f'#!/bin/sh\nexec {sys.executable} -IS {ENGINE} "$0" "$@"\n'
        self.program = script(base / word, text)
        self.inside(INSIDE)

    def inside(self, body: str) -> None:
        """What a container of the image does."""
        script(self.base / "inside", "#!/bin/bash\n" + body)

    def config(self, **profile: Any) -> Json:
        container = {
            "image": "media:1",
            "engine": str(self.program),
            "options": ["--network", "host"],
            "exec": ["/bin/handle"],
        }
        whole = {
            "use_container": True,
            "container": container,
            "command": ["serve", "{gw_id}"],
            "ready": {"when": "line", "pattern": "^serving", "timeout": 5},
            "restart": QUICK,
            "stop": {"grace": 2},
            **profile,
        }
        return {"gateways": {"profiles": {"box": whole}}}

    def calls(self, what: str) -> list[list[str]]:
        """Argument lists of one kind so far."""
        lines = (self.base / "calls").read_text().splitlines()
        return [words for line in lines if (words := json.loads(line))[1] == what]

    def end(self) -> None:
        """Leave nothing running."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def pids(self) -> list[int]:
        """Of what runs in containers now."""
        found = []
        for file in (self.base / "boxes").glob("*/pid"):
            pid = int(file.read_text())
            with suppress(OSError):
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found.append(pid)
        return found


@pytest.fixture(params=["docker", "podman"])
def boxes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Boxes]:
    base = tmp_path / "engine"
    base.mkdir()
    made = Boxes(base, request.param)
    yield made
    made.end()


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Boxes]:
    base = tmp_path / "engine"
    base.mkdir()
    made = Boxes(base, "docker")
    yield made
    made.end()


async def test_start_status_command_and_stop(tmp_path: Path, boxes: Boxes) -> None:
    async with fleet(tmp_path, boxes.config()) as it:
        status = await it.up("gw01", "box", api_key="no-ones-business")
        assert (status["gw_state"], status["pid"]) == ("up", None)
        (run,) = boxes.calls("run")
        assert run[:5] == [boxes.word, "run", "--detach", "--name", run[4]]
        assert run[4].startswith("switchboard-")
        assert run[4].endswith("-gw01")
        assert run[-5:] == ["--network", "host", "media:1", "serve", "gw01"]
        assert f"{it.appliance.folder}/gateways/gw01:/run/gateway" in run
        (pid,) = boxes.pids()
        environment = psutil.Process(pid).environ()
        assert environment["GATEWAY_ROOM"] == "test-room"
        assert environment["GATEWAY_API_KEY"] == "no-ones-business"
        assert not any("no-ones-business" in word for words in boxes.calls("run") for word in words)

        answer = await it.send("gw01", {"command": "anything", "n": 1})
        assert answer.json()["data"]["received"] == {
            "heard": {"command": "anything", "n": 1},
            "by": ["/bin/handle"],
        }
        answer = await it.send("gw01", {"command": "fail"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "command_failed")

        await it.down("gw01")
        assert boxes.calls("stop") == [[boxes.word, "stop", "--time", "2", run[4]]]
        assert boxes.pids() == []
        assert list((boxes.base / "boxes").iterdir()) == []
        await it.event("gw01", "stopped")
        assert it.types("gw01") == ["starting", "started", "stopping", "stopped"]


async def test_force_is_a_kill(tmp_path: Path, docker: Boxes) -> None:
    docker.inside("trap '' TERM\necho serving\nwhile :; do sleep 0.05; done\n")
    async with fleet(tmp_path, docker.config(stop={"grace": 20})) as it:
        await it.up("gw01", "box")
        await it.down("gw01", force=True)
        assert len(docker.calls("kill")) == 1
        assert docker.calls("stop") == []
        assert docker.pids() == []


async def test_a_container_that_cannot_be_run_says_what_the_engine_said(
    tmp_path: Path, docker: Boxes
) -> None:
    (docker.base / "refuse").touch()
    async with fleet(tmp_path, docker.config()) as it:
        answer = await it.start("gw01", "box")
        assert answer.status_code == 500
        assert "pull access denied" in answer.json()["error"]["message"]
        assert (await it.status("gw01"))["gw_state"] == "down"


async def test_no_engine_at_all_is_said(tmp_path: Path, docker: Boxes) -> None:
    config = docker.config()
    async with fleet(tmp_path, config) as it:
        shutil.move(docker.program, docker.base / "gone")
        answer = await it.start("gw01", "box")
        assert answer.status_code == 500
        assert "No such file" in answer.json()["error"]["message"]
        shutil.move(docker.base / "gone", docker.program)
        await it.up("gw01", "box")
        shutil.move(docker.program, docker.base / "gone")
        answer = await it.send("gw01", {"command": "x"})
        assert answer.status_code == 409
        assert (await it.status("gw01"))["gw_state"] == "up"
        shutil.move(docker.base / "gone", docker.program)
        await it.down("gw01")


async def test_a_container_that_dies_is_started_again(tmp_path: Path, docker: Boxes) -> None:
    docker.inside(INSIDE.replace("exit 0", "exit 7"))
    async with fleet(tmp_path, docker.config()) as it:
        await it.up("gw01", "box")
        (pid,) = docker.pids()
        os.killpg(pid, signal.SIGKILL)
        died = await it.event("gw01", "died")
        assert "137" in died["data"]["reason"]
        await it.event("gw01", "started", died["seq"])
        assert len(docker.calls("run")) == 2
        (again,) = docker.pids()
        assert again != pid


async def test_a_container_outlives_a_killed_appliance_and_is_taken_up_again(
    tmp_path: Path, docker: Boxes
) -> None:
    """The same container, and no second run."""
    async with fleet(tmp_path, docker.config()) as it:
        await it.up("gw01", "box")
        before = docker.pids()
        await it.appliance.kill9()
        await it.appliance.start()
        async with Fleet(it.appliance) as again:
            restarting = await again.event("gw01", "restarting")
            started = await again.event("gw01", "started", restarting["seq"])
            assert started["data"]["adopted"] is True
            assert docker.pids() == before
            assert len(docker.calls("run")) == 1
            answer = await again.send("gw01", {"command": "still there?"})
            assert answer.status_code == 200
            await again.down("gw01")
            assert docker.pids() == []


async def test_a_container_outlives_an_orderly_restart(tmp_path: Path, docker: Boxes) -> None:
    async with fleet(tmp_path, docker.config()) as it:
        await it.up("gw01", "box")
        before = docker.pids()
        await it.appliance.restart()
        async with Fleet(it.appliance) as again:
            await again.is_("gw01", gw_state="up")
            assert docker.pids() == before
            assert len(docker.calls("run")) == 1
            await again.down("gw01")


async def test_a_container_that_ended_while_the_appliance_was_down_is_run_again(
    tmp_path: Path, docker: Boxes
) -> None:
    async with fleet(tmp_path, docker.config()) as it:
        await it.up("gw01", "box")
        await it.appliance.kill9()
        (pid,) = docker.pids()
        os.killpg(pid, signal.SIGKILL)
        await it.appliance.start()
        async with Fleet(it.appliance) as again:
            await again.is_("gw01", gw_state="up")
            assert len(docker.calls("run")) == 2
            assert len(docker.pids()) == 1


async def test_a_stop_that_the_appliance_died_in_is_finished_by_the_next(
    tmp_path: Path, docker: Boxes
) -> None:
    docker.inside("trap '' TERM\necho serving\nwhile :; do sleep 0.05; done\n")
    async with fleet(tmp_path, docker.config(stop={"grace": 20})) as it:
        await it.up("gw01", "box")
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                with suppress(Exception):  # the answer never comes: its giver is killed
                    await it.stop("gw01")

            nursery.start_soon(stop)
            await it.event("gw01", "stopping")
            await it.appliance.kill9()
        await it.appliance.start()
        async with Fleet(it.appliance) as again:
            await again.event("gw01", "stopped")
            assert (await again.status("gw01"))["gw_state"] == "down"
            assert docker.pids() == []


async def test_a_stop_while_the_container_is_being_created_leaves_none(
    tmp_path: Path, docker: Boxes
) -> None:
    slow = script(
        docker.base / "slow",
        f'#!/bin/sh\n[ "$1" = run ] && sleep 0.7\nexec {docker.program} "$@"\n',
    )
    config = docker.config()
    config["gateways"]["profiles"]["box"]["container"]["engine"] = str(slow)
    async with fleet(tmp_path, config) as it:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.start, "gw01", "box")
            await it.event("gw01", "starting")
            await it.down("gw01", force=True)
        assert docker.pids() == []
        assert (await it.status("gw01"))["gw_state"] == "down"
