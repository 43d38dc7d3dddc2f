"""What a gateway runs in: a process of ours, or a container of an engine's.

The actor sees no difference: `run` until it ends, `lines` as they come, `stop`.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
import trio

from actors.gateway.container import Engine
from actors.gateway.messages import Json
from actors.gateway.render import Rendered
from config.model import Profile
from supervisor.errors import Rejected
from supervisor.log import logger
from supervisor.orphans import Registry
from supervisor.process import Command, Exit, Process

# Each call of a container engine gets this long, in seconds; starting may pull nothing.
ENGINE_TIMEOUT = 30.0
ENGINE_LINES = 1000


class CannotStart(Exception):
    """It could not be started; the message says why."""


class Runner(Protocol):
    """One run."""

    @property
    def pid(self) -> int | None:
        """The leader's process id, where there is one of ours."""

    async def run(self, task_status: trio.TaskStatus[None]) -> Exit:
        """Start, report started, return when it has ended. Raises CannotStart."""

    async def stop(self, grace: float, force: bool) -> None:
        """End it."""

    async def send(self, data: bytes) -> None:
        """To its standard input."""

    def last_lines(self) -> list[str]:
        """The newest lines of its output."""


def limited(profile: Profile, argv: list[str]) -> list[str]:
    """The argument list under the profile's limits (prlimit and nice replace themselves by it)."""
    limits, before = profile.limits, list[str]()
    if limits.memory_mb or limits.open_files:
        before.append("prlimit")
        if limits.memory_mb:
            before.append(f"--as={limits.memory_mb * 1024 * 1024}")
        if limits.open_files:
            before.append(f"--nofile={limits.open_files}")
    if limits.nice:
        before += ["nice", "-n", str(limits.nice)]
    return [*before, *argv]


class ProcessRunner:
    """A process of ours: it ends when we do."""

    def __init__(
        self,
        profile: Profile,
        rendered: Rendered,
        owner: str,
        registry: Registry,
        on_line: Callable[[str], None],
    ) -> None:
        self._signal = signal.Signals[f"SIG{profile.stop.signal}"]
        command = Command(
            limited(profile, rendered.argv),
            rendered.env,
            rendered.folder,
            owner,
            stdin=profile.control == "lines",
        )
        self._process = Process(command, registry, on_line)

    @property
    def pid(self) -> int | None:
        """See Runner."""
        return self._process.pid or None

    @property
    def identity(self) -> tuple[int, int]:
        """Process id and start time, for the store."""
        return self._process.pid, self._process.started

    async def run(self, task_status: trio.TaskStatus[None]) -> Exit:
        """See Runner."""

        class Status:
            def started(self, _value: object = None) -> None:
                task_status.started()

        try:
            return await self._process.run(task_status=Status())
        except OSError as error:
            raise CannotStart(f"{self._process.command.argv[0]}: {error.strerror}") from error

    async def stop(self, grace: float, force: bool) -> None:
        """See Runner."""
        if force:
            await self._process.kill()
        else:
            await self._process.stop(grace, self._signal)

    async def send(self, data: bytes) -> None:
        """See Runner."""
        await self._process.send(data)

    def last_lines(self) -> list[str]:
        """See Runner."""
        return self._process.last_lines()


class ContainerRunner:
    """A container: it outlives the appliance, and is adopted at the next start."""

    def __init__(
        self,
        profile: Profile,
        rendered: Rendered,
        values: dict[str, str],
        engine: Engine,
        owner: str,
        registry: Registry,
        on_line: Callable[[str], None],
    ) -> None:
        self._profile = profile
        self._rendered = rendered
        self._values = values
        self._engine = engine
        self._owner = owner
        self._registry = registry
        self._on_line = on_line
        self._lines: list[str] = []
        self._asked = False
        self.adopted = False

    @property
    def pid(self) -> int | None:
        """A container's processes are the engine's, not ours."""
        return None

    async def running(self) -> bool:
        """Is it there and running?"""
        status, output = await self._call(self._engine.inspect())
        if status != 0:
            return False
        try:
            state: Json = msgspec.json.decode("".join(output), type=dict)
        except (msgspec.DecodeError, RecursionError):
            return False
        return bool(state.get("Running"))

    async def run(self, task_status: trio.TaskStatus[None]) -> Exit:
        """See Runner: adopt the container that is there, or create one; then wait for its end."""
        self.adopted = await self.running()
        if not self.adopted:
            await self._call(self._engine.remove())
            argv = self._engine.run(
                self._rendered.argv, self._rendered.env, self._values, self._rendered.folder
            )
            status, output = await self._call(argv, env=self._rendered.env)
            if status != 0:
                raise CannotStart(f"{argv[0]} run failed: {' '.join(output[-3:]) or status}")
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow)
            status = await self._wait()
            nursery.cancel_scope.cancel()
        await self._call(self._engine.remove())
        return Exit(status, self._asked)

    async def _wait(self) -> int:
        """Until it has ended; `wait` itself may be cut off, the container is what counts."""
        while True:
            status, output = await self._call(self._engine.wait(), timeout=float("inf"))
            if status == 0 and output and output[-1].lstrip("-").isdigit():
                return int(output[-1])
            if not await self.running():
                return 255
            await trio.sleep(1.0)

    async def _follow(self) -> None:
        while True:
            process = self._process(self._engine.logs(), self._take)
            try:
                await process.run()
            except OSError as error:
                logger.warning("container_logs_lost", actor=self._owner, error=str(error))
            await trio.sleep(1.0)

    def _take(self, line: str) -> None:
        self._lines = [*self._lines[-49:], line]
        self._on_line(line)

    async def stop(self, grace: float, force: bool) -> None:
        """See Runner."""
        self._asked = True
        argv = self._engine.kill() if force else self._engine.stop(grace)
        status, output = await self._call(argv, timeout=grace + ENGINE_TIMEOUT)
        if status != 0:
            logger.warning("container_stop_failed", actor=self._owner, output=output[-3:])
            await self._call(self._engine.remove())

    async def execute(self, payload: Json) -> Json:
        """Hand a command to the program in the container; its output, as JSON if it is."""
        if not self._profile.container or not self._profile.container.exec:
            raise Rejected("unsupported", "this profile's container has no `exec` command")
        argv = self._engine.execute(msgspec.json.encode(payload).decode())
        status, output = await self._call(argv)
        text = "\n".join(output)
        try:
            decoded = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            decoded = {"output": text}
        if status != 0:
            raise Rejected("command_failed", f"it ended with status {status}", {"output": text})
        return decoded if isinstance(decoded, dict) else {"output": decoded}

    async def send(self, data: bytes) -> None:
        """A detached container has no standard input of ours."""
        raise trio.ClosedResourceError(f"no standard input for {len(data)} bytes")

    def last_lines(self) -> list[str]:
        """See Runner."""
        return self._lines[-5:]

    def _process(self, argv: list[str], on_line: Callable[[str], None]) -> Process:
        return Process(Command(argv, owner=self._owner), self._registry, on_line)

    async def _call(
        self,
        argv: list[str],
        timeout: float = ENGINE_TIMEOUT,
        env: Mapping[str, str] | None = None,
    ) -> tuple[int, list[str]]:
        return await call_engine(argv, self._registry, self._owner, timeout, env)


async def call_engine(
    argv: list[str],
    registry: Registry,
    owner: str,
    timeout: float = ENGINE_TIMEOUT,
    env: Mapping[str, str] | None = None,
) -> tuple[int, list[str]]:
    """Run the engine's command; its exit status and its lines.

    124: it took too long; 127: there is no such command.
    """
    lines: deque[str] = deque(maxlen=ENGINE_LINES)
    process = Process(Command(argv, env or {}, owner=owner), registry, lines.append)
    try:
        with trio.move_on_after(timeout):
            ended = await process.run()
            return ended.status, list(lines)
    except OSError as error:
        return 127, [f"{argv[0]}: {error.strerror}"]
    return 124, [*lines, f"no end within {timeout:g} s"]


async def remove_container(profile: Profile, gw_id: str, registry: Registry) -> None:
    """End and remove a container that is left from before."""
    if profile.container is None:
        return
    engine = Engine(profile.container, registry.instance, gw_id)
    status, output = await call_engine(engine.remove(), registry, f"gateway/{gw_id}")
    if status != 0:
        logger.error("container_left", gw_id=gw_id, output=output[-3:])
