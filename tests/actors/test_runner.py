"""What a gateway is run with, and how a container engine's answers are read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from actors.gateway.container import Engine
from actors.gateway.recording import held_open
from actors.gateway.render import Rendered
from actors.gateway.runner import CannotStart, ContainerRunner, call_engine, limited
from config.model import Container, Profile, ProfileLimits, Ready
from tests.flows.kit import script
from tests.supervisor.procs import registry, run

READY = Ready(when="running")


@pytest.mark.parametrize(
    ("limits", "argv"),
    [
        (ProfileLimits(), ["x"]),
        (ProfileLimits(memory_mb=256), ["prlimit", "--as=268435456", "x"]),
        (ProfileLimits(open_files=64), ["prlimit", "--nofile=64", "x"]),
        (ProfileLimits(nice=5), ["nice", "-n", "5", "x"]),
        (
            ProfileLimits(memory_mb=1, open_files=2, nice=3),
            ["prlimit", "--as=1048576", "--nofile=2", "nice", "-n", "3", "x"],
        ),
    ],
)
def test_limits_stand_before_the_command(limits: ProfileLimits, argv: list[str]) -> None:
    assert limited(Profile(command=["x"], ready=READY, limits=limits), ["x"]) == argv


async def test_an_engine_that_is_not_there_has_the_shells_status_for_it() -> None:
    status, lines = await call_engine(["/no/such/engine", "ps"], registry(), "/test")
    assert (status, lines) == (127, ["/no/such/engine: No such file or directory"])


async def test_an_engine_that_hangs_is_left() -> None:
    with trio.fail_after(10):
        status, lines = await call_engine(["sleep", "60"], registry(), "/test", timeout=0.1)
    assert (status, lines) == (124, ["no end within 0.1 s"])


@pytest.mark.parametrize(
    ("printed", "running"),
    [
        ('{"Running": true}', True),
        ('{"Running": false}', False),
        ("{}", False),
        ("[]", False),
        ("no json", False),
        ("", False),
        ("[" * 3000, False),
    ],
)
async def test_how_inspect_is_read(tmp_path: Path, printed: str, running: bool) -> None:
    program = script(tmp_path / "docker", f"#!/bin/sh\nprintf '%s\\n' '{printed}'\n")
    assert await runner(program).running() is running


async def test_a_run_that_fails_is_told_with_the_engines_words(tmp_path: Path) -> None:
    program = script(
        tmp_path / "docker", "#!/bin/sh\n[ $1 = run ] && echo no space left on device\nexit 125\n"
    )
    with trio.fail_after(10), pytest.raises(CannotStart, match="no space left on device"):
        await runner(program).run(trio.TASK_STATUS_IGNORED)


def runner(program: Path) -> ContainerRunner:
    container = Container(image="media:1", engine=str(program))
    profile = Profile(use_container=True, container=container, ready=READY)
    engine = Engine(container, "0123abcd4567", "gw01")
    rendered = Rendered([], {}, {}, program.parent)
    return ContainerRunner(
        profile, rendered, {}, engine, "/test", registry(), on_line=lambda _line: None
    )


async def test_the_files_that_a_group_has_open(tmp_path: Path) -> None:
    """Also those of a child of the leader: the command may be a wrapper."""
    kept, closed = tmp_path / "kept", tmp_path / "closed"
    closed.touch()
    text = f"import time; f = open({str(kept)!r}, 'w'); print('ready', flush=True); time.sleep(60)"
    async with trio.open_nursery() as nursery:
        process, words = await run(nursery, f'{sys.executable} -c "{text}" & wait')
        with trio.fail_after(10):
            await words.starting("ready")
        found = held_open(process.pid)
        await process.kill()
    assert kept in found
    assert closed not in found
    assert held_open(process.pid) == set()
