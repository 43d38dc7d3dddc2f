"""Servers as processes of their own: the appliance, and what it is compared with."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.bench.kit import ROOT, environment, folder

UP = 60.0
DOWN = 30.0
GATEWAY = "gw01"


@dataclass(frozen=True, slots=True)
class Server:
    """Where it listens, and its process."""

    port: int
    pid: int
    token: str = ""

    @property
    def authorization(self) -> str:
        """A header line."""
        return f"Authorization: Bearer {self.token}\r\n" if self.token else ""

    def ask(
        self, method: str, path: str, body: Any = None
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """One request: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=UP)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        found = answer.status, answer.getheaders(), answer.read()
        connection.close()
        return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the time of the block; what it says goes to a file."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, *argv], cwd=ROOT, env=environment(), stdout=output, stderr=output
        )
    try:
        yield running
    except BaseException:
        print(log.read_text()[-2000:], file=sys.stderr)
        raise
    finally:
        running.terminate()
        try:
            running.wait(DOWN)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def until_up(server: Server, path: str, running: subprocess.Popen[bytes]) -> None:
    """Wait until it answers `path` with 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode()
    end = time.monotonic() + UP
    while time.monotonic() < end:
        if running.poll() is not None:
            raise RuntimeError(f"the server ended with status {running.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as link:
                link.sendall(request)
                if link.recv(64).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            pass
        time.sleep(0.005)
    raise RuntimeError(f"no server within {UP:g} s")


# -- the appliance ----------------------------------------------------------------


def write_config(place: Path, port: int, token: str, linger: float = 10.0) -> Path:
    """A configuration with a profile that costs nothing, and without a limit of requests."""
    config = {
        "state": str(place / "state"),
        "server": {"bind": [f"127.0.0.1:{port}"]},
        "auth": {"tokens": [{"name": "bench", "token": token, "scopes": ["*"]}]},
        "limits": {"requests_per_minute": 0},
        "log": {"level": "warning"},
        "gateways": {
            "linger": linger,
            "starting_at_once": 16,
            "profiles": {
                "trivial": {
                    "command": ["sleep", "600"],
                    "ready": {"when": "running", "seconds": 0.005},
                }
            },
        },
    }
    file = place / "switchboard.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


@contextmanager
def appliance(place: Path, *, script: list[str] | None = None) -> Iterator[Server]:
    """`switchboard serve`, or a script that takes the same option, once it is ready."""
    port, token = free_port(), secrets.token_hex(16)
    file = write_config(place, port, token)
    argv = [*(script or ["-m", "api.cli", "serve"]), "--config", str(file)]
    with process(argv, place / "log") as running:
        server = Server(port, running.pid, token)
        until_up(server, "/readyz", running)
        yield server


@contextmanager
def appliance_with_gateway() -> Iterator[Server]:
    """`switchboard serve` with one gateway that is up."""
    with folder() as place, appliance(place) as server:
        body = {"gw_id": GATEWAY, "room": "bench", "main_app": "trivial"}
        status, _, said = server.ask("POST", "/gateway/start", body)
        assert status == 200, said
        yield server


@contextmanager
def host(module: str, which: str, *args: str) -> Iterator[Server]:
    """One of hosts.py or rivals.py."""
    port = free_port()
    with (
        folder() as place,
        process(["-m", f"tests.bench.{module}", which, str(port), *args], place / "log") as running,
    ):
        server = Server(port, running.pid)
        until_up(server, "/up", running)
        yield server
