"""Container engines, by their argument lists.

No engine runs here. What is pinned is each argument list, word by word, as `docker` (20.10 and
later) and `podman` (4 and later) document it; flows/test_containers.py runs them against a
stand-in that behaves as their command lines do.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.gateway.container import Engine
from config.model import Container

NAME = "switchboard-0123abcd-gw01"
FOLDER = Path("/state/gateways/gw01")


@pytest.fixture(params=["docker", "podman"])
def engine(request: pytest.FixtureRequest) -> tuple[str, Engine]:
    container = Container(
        engine=request.param,
        image="media/{main_app}:2",
        options=["--network", "host", "--env", "WHERE={room}"],
        exec=["/usr/bin/handle", "--json"],
    )
    return request.param, Engine(container, "0123abcd4567", "gw01")


def test_run(engine: tuple[str, Engine]) -> None:
    word, commands = engine
    values = {"main_app": "recording", "room": "blue room"}
    # Of the environment only names: everybody on the machine sees an argument list.
    assert commands.run(["serve", "gw01"], {"A": "1", "B": "x y"}, values, FOLDER) == [
        word,
        "run",
        "--detach",
        "--name",
        NAME,
        "--label",
        "switchboard.instance=0123abcd4567",
        "--volume",
        "/state/gateways/gw01:/run/gateway",
        "--env",
        "A",
        "--env",
        "B",
        "--network",
        "host",
        "--env",
        "WHERE=blue room",
        "media/recording:2",
        "serve",
        "gw01",
    ]


def test_the_image_decides_what_runs_when_there_is_no_command(engine: tuple[str, Engine]) -> None:
    _, commands = engine
    assert commands.run([], {}, {"main_app": "x", "room": ""}, FOLDER)[-1] == "media/x:2"


def test_inspect(engine: tuple[str, Engine]) -> None:
    word, commands = engine
    assert commands.inspect() == [
        word,
        "inspect",
        "--type",
        "container",
        "--format",
        "{{json .State}}",
        NAME,
    ]


def test_wait(engine: tuple[str, Engine]) -> None:
    word, commands = engine
    assert commands.wait() == [word, "wait", NAME]


def test_logs(engine: tuple[str, Engine]) -> None:
    word, commands = engine
    assert commands.logs() == [word, "logs", "--follow", "--tail", "50", NAME]


@pytest.mark.parametrize(("grace", "told"), [(10.0, "10"), (2.7, "2"), (0.2, "1")])
def test_stop_takes_whole_seconds(engine: tuple[str, Engine], grace: float, told: str) -> None:
    """Never 0: that would be a kill."""
    word, commands = engine
    assert commands.stop(grace) == [word, "stop", "--time", told, NAME]


def test_kill(engine: tuple[str, Engine]) -> None:
    word, commands = engine
    assert commands.kill() == [word, "kill", NAME]


def test_remove(engine: tuple[str, Engine]) -> None:
    word, commands = engine
    assert commands.remove() == [word, "rm", "--force", NAME]


def test_exec(engine: tuple[str, Engine]) -> None:
    word, commands = engine
    payload = '{"command":"dial","param1":"a b"}'
    assert commands.execute(payload) == [word, "exec", NAME, "/usr/bin/handle", "--json", payload]


def test_two_appliances_on_one_engine_do_not_meet() -> None:
    container = Container(image="x")
    names = {Engine(container, instance, "gw01").name for instance in ("a" * 12, "b" * 12)}
    assert len(names) == 2
