"""A real appliance for tests: a process of its own, or the same parts inside the test.

Nothing is shared: each has its own folder, address and ranges of gateway ports, so that tests
run beside each other. That it is ready is told by itself, as it tells systemd.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx
import structlog
import trio
import yaml
from trio_websocket import WebSocketConnection, open_websocket_url

from config.load import load
from main import ADMIN_TOKEN, Switchboard, write_token
from supervisor import log as logs

ROOT = Path(__file__).resolve().parent.parent
# Seconds in which an appliance must be up, and down.
UP = 30.0
DOWN = 45.0
# Gateways that an appliance of a test can have at once.
SLOTS = 24
# Below the ports that the system gives to clients, beside those of the packaged defaults.
_FIRST, _LAST = 10_000, 16_000


def _mine() -> range:
    """Of these, what belongs to this process where several run tests beside each other."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    size = (_LAST - _FIRST) // count
    first = _FIRST + int(worker.removeprefix("gw")) * size
    return range(first, first + size)


_RANGE = _mine()
_OURS = "unset"


def ports(count: int = 1, address: str = "127.0.0.1") -> int:
    """The first of so many free ports that follow each other, for TCP and for UDP."""
    for _ in range(500):
        first = random.randrange(_RANGE.start, _RANGE.stop - count)
        if all(_free(address, port) for port in range(first, first + count)):
            return first
    raise AssertionError(f"no {count} free ports in a row")


def _free(address: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as attempt:
            if kind is socket.SOCK_STREAM:
                # What lingers of a connection that is over is no listener.
                attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind((address, port))
            except OSError:
                return False
    return True


def laid_over(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merge, everything else replaces."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = laid_over(below, value)
        else:
            merged[key] = value
    return merged


def own_config(folder: Path, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A configuration that meets no other appliance, with more laid over it."""
    sip = ports(23 * SLOTS)
    control, rtp = sip + 2 * SLOTS, sip + 3 * SLOTS
    base = {
        "state": str(folder / "state"),
        "server": {"bind": [f"127.0.0.1:{ports()}"]},
        "gateways": {
            "ports": {
                "sip": {"first": sip, "last": sip + 2 * SLOTS - 1},
                "control": {"first": control, "last": control + SLOTS - 1},
                "rtp": {"first": rtp, "last": rtp + 20 * SLOTS - 1},
            }
        },
    }
    return laid_over(base, config or {})


class Appliance:
    """One that runs as a process; `start` and `stop` it as often as needed.

    `on_answer` looks at every answer that a client of any appliance gets.
    """

    on_answer: ClassVar[list[Callable[[httpx.Response], Awaitable[None]]]] = []

    def __init__(
        self, home: Path, config: Mapping[str, Any] | None, env: Mapping[str, str] | None = None
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.config_file = home / "switchboard.yaml"
        self.log = home / "log"
        self.config = own_config(home, config)
        self.folder = Path(self.config["state"])
        self.env = dict(env or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.write_config()

    # -- where it is ----------------------------------------------------------

    @property
    def address(self) -> str:
        """The first address that it listens on: `host:port`."""
        return str(self.config["server"]["bind"][0])

    @property
    def port(self) -> int:
        """Of its first address."""
        return int(self.address.rpartition(":")[2])

    @property
    def url(self) -> str:
        """Of its first address."""
        scheme = "https" if self.config["server"].get("tls") else "http"
        return f"{scheme}://{self.address}"

    @property
    def token(self) -> str:
        """The admin token of its first start."""
        return (self.folder / ADMIN_TOKEN).read_text().strip()

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last."""
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        """Has it not ended yet?"""
        return self.process is not None and self.process.poll() is None

    def log_lines(self) -> list[dict[str, Any]]:
        """All that it logged, of all its starts. A line that is no JSON is `{"text": …}`."""
        found = []
        for line in self.log.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"text": line})
        return found

    # -- life -----------------------------------------------------------------

    def write_config(self, change: Mapping[str, Any] | None = None) -> None:
        """Write the file, with a change laid over what it was."""
        self.config = laid_over(self.config, change or {})
        self.config_file.write_text(yaml.safe_dump(self.config, sort_keys=False))

    def launch(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start the process and do not wait for anything."""
        assert not self.running
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "api.cli", "serve", "--config", str(self.config_file)],
                cwd=ROOT,
                env={**os.environ, **self.env, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self.process

    async def start(self) -> None:
        """Start the process and wait until it says that it is ready, over HTTP too."""
        name = f"switchboard-test-{secrets.token_hex(8)}"
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            await notified.bind(f"\0{name}")
            self.launch(NOTIFY_SOCKET=f"@{name}")
            await self._told_ready(notified)
        async with self.client(event_hooks={}) as client:
            answer = await client.get("/readyz")
            assert answer.status_code == 200, answer.text

    async def _told_ready(self, notified: trio.socket.SocketType) -> None:
        with trio.move_on_after(UP):
            async with trio.open_nursery() as nursery:

                async def until_ended() -> None:
                    await self._ended()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(until_ended)
                while b"READY=1" not in await notified.recv(4096):
                    continue
                nursery.cancel_scope.cancel()
        if not self.running:
            raise AssertionError(
                f"it ended with {self.exit_status}: {self.log.read_text()[-3000:]}"
            )

    async def _ended(self) -> None:
        """Return when the process has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            return
        descriptor = os.pidfd_open(self.process.pid)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
        self.process.wait()

    @property
    def exit_status(self) -> int | None:
        """Of the process that ran last; None while it runs."""
        return None if self.process is None else self.process.poll()

    async def exited(self, within: float = DOWN) -> int:
        """Wait for the end of the process; its exit status (negative for a signal)."""
        with trio.fail_after(within):
            await self._ended()
        assert self.process is not None
        return int(self.process.returncode)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        assert self.running
        os.kill(self.pid, number)

    async def kill9(self) -> None:
        """As a power cut would: nothing is said, nothing is finished."""
        self.signal(signal.SIGKILL)
        await self.exited()

    async def stop(self, within: float = DOWN) -> int:
        """SIGTERM, and the exit status. One that has ended already is not signalled."""
        if self.running:
            self.signal(signal.SIGTERM)
        return await self.exited(within)

    async def restart(self) -> None:
        """Stop it in order, unless it is down already, and start it again."""
        if self.running:
            assert await self.stop() == 0
        await self.start()

    async def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if not self.running:
            return
        with trio.CancelScope(shield=True):
            with trio.move_on_after(DOWN):
                await self.stop()
            if self.running:
                await self.kill9()

    # -- its clients ----------------------------------------------------------

    def client(self, token: str | None = _OURS, **more: Any) -> httpx.AsyncClient:
        """A client with the admin token, another one, or (None) without."""
        token = self.token if token == _OURS else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        hooks = {"response": self.on_answer}
        settings: dict[str, Any] = {"timeout": 30.0, "trust_env": False, "event_hooks": hooks}
        settings |= more
        return httpx.AsyncClient(base_url=self.url, headers=headers, **settings)

    @asynccontextmanager
    async def ws(
        self, query: str = "", token: str | None = _OURS, **more: Any
    ) -> AsyncIterator[WebSocketConnection]:
        """A WebSocket at /ws. One that is refused leaks its socket: see tests/api/kit.py."""
        token = self.token if token == _OURS else token
        headers = [(b"Authorization", f"Bearer {token}".encode())] if token else []
        url = f"{self.url.replace('http', 'ws', 1)}/ws" + (f"?{query}" if query else "")
        async with open_websocket_url(
            url, extra_headers=headers, max_message_size=64 * 1024 * 1024, **more
        ) as connection:
            try:
                yield connection
            finally:
                # The library leaves the socket open when the server closed first.
                try:
                    with trio.move_on_after(5):
                        await connection.aclose()
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.aclose_forcefully(connection._stream)


@asynccontextmanager
async def running(
    tmp_path: Path,
    config: Mapping[str, Any] | None = None,
    *,
    name: str = "appliance",
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Appliance]:
    """An appliance that runs, in a folder of its own below `tmp_path`."""
    appliance = Appliance(tmp_path / name, config, env)
    try:
        await appliance.start()
        yield appliance
    finally:
        await appliance.end()


class Inside(Appliance):
    """The same, inside the test's process: `board` is the composition."""

    def __init__(self, home: Path, config: Mapping[str, Any] | None) -> None:
        super().__init__(home, config)
        self.board = Switchboard(load(self.config_file), lambda: load(self.config_file))


@asynccontextmanager
async def inside(
    tmp_path: Path,
    config: Mapping[str, Any] | None = None,
    *,
    heartbeat: float | None = None,
    name: str = "inside",
) -> AsyncIterator[Inside]:
    """An appliance in this process, ready; `heartbeat` of its streams in seconds."""
    home = tmp_path / name
    home.mkdir(parents=True)
    with (home / "log").open("w") as log:
        logs.configure("info", log)
        appliance = Inside(home, config)
        board = appliance.board
        if heartbeat is not None:
            board.streams.heartbeat = heartbeat
        try:
            made = await board.prepare()
            assert made is not None
            write_token(board.folder / ADMIN_TOKEN, made)
            ready = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(board.run, ready.set)
                with trio.fail_after(UP):
                    await ready.wait()
                try:
                    yield appliance
                finally:
                    board.stop("test over")
        finally:
            board.close()
            structlog.reset_defaults()
