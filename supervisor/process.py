"""A supervised process of the operating system.

It has a session of its own, so that its whole group can be ended; its output is read always and
kept in a bounded ring of lines; it ends by TERM, then KILL; and it never outlives the appliance
(orphans.py).
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import trio

from supervisor import guardian
from supervisor.log import logger
from supervisor.orphans import Registry

LINES = 200
LINE_BYTES = 4096
# What is left of a group after its leader, and output that nobody closes, get this long.
AFTERMATH = 2.0


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: an argument list, never a shell line."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    owner: str = ""
    # Keep a pipe to its standard input (see `Process.send`); otherwise it reads nothing.
    stdin: bool = False
    # Run as this user of the system, with its group and no others; only root can. None: as we are.
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: `status` as from wait(2): below 0 it is minus the signal."""

    status: int
    asked: bool

    def __str__(self) -> str:
        if self.status >= 0:
            return f"exited with status {self.status}"
        try:
            name = signal.Signals(-self.status).name
        except ValueError:
            name = f"signal {-self.status}"
        return f"ended by {name}" + (" as asked" if self.asked else "")


class Process:
    """One run of a command. `start` it in a nursery that lives as long as it should."""

    def __init__(
        self,
        command: Command,
        registry: Registry,
        on_line: Callable[[str], None] | None = None,
        on_error_line: Callable[[str], None] | None = None,
    ) -> None:
        self.command = command
        self.lines: deque[str] = deque(maxlen=LINES)
        self.pid = 0
        self.started = 0
        self.exit: Exit | None = None
        self._registry = registry
        self._on_line = on_line
        # Given, standard error is read apart; otherwise both outputs are one.
        self._on_error_line = on_error_line
        self._process: trio.Process | None = None
        self._ended = trio.Event()
        self._asked = False

    async def run(self, task_status: trio.TaskStatus[Process] = trio.TASK_STATUS_IGNORED) -> Exit:
        """Run it to its end: `process = await nursery.start(process.run)`.

        Raises OSError when it cannot be started, KeyError when there is no such user. Cancelled,
        it kills the group first.
        """
        env = {**_base_environment(), **self.command.env, **self._registry.environment()}
        with trio.CancelScope(shield=True):
            # Shielded for the time of a fork: a process that nobody knows of must not exist.
            process = self._process = await trio.lowlevel.open_process(
                list(self.command.argv),
                env=env,
                cwd=self.command.cwd,
                stdin=subprocess.PIPE if self.command.stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if self._on_error_line else subprocess.STDOUT,
                start_new_session=True,
                **_as_user(self.command.user),
            )
        self.pid = process.pid
        self.started = self._registry.add(self.pid, self.command.owner)
        logger.info("process_started", actor=self.command.owner, pid=self.pid)
        task_status.started(self)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_output, process.stdout, self._on_line)
                if process.stderr is not None:
                    nursery.start_soon(self._read_output, process.stderr, self._on_error_line)
                await process.wait()
                self._kill_group()
                nursery.cancel_scope.deadline = trio.current_time() + AFTERMATH
        finally:
            if process.returncode is None:
                self._kill_group()
                with trio.move_on_after(AFTERMATH, shield=True):
                    await process.wait()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + AFTERMATH):
                for stream in (process.stdin, process.stdout, process.stderr):
                    if stream is not None:
                        await stream.aclose()
            self._registry.remove(self.pid)
            status = process.returncode if process.returncode is not None else -signal.SIGKILL
            self.exit = Exit(status, self._asked)
            self._ended.set()
        logger.info("process_ended", actor=self.command.owner, pid=self.pid, how=str(self.exit))
        return self.exit

    async def wait(self) -> Exit:
        """How it ended, when it has."""
        await self._ended.wait()
        assert self.exit is not None
        return self.exit

    async def stop(self, grace: float, number: signal.Signals = signal.SIGTERM) -> Exit:
        """Signal the group, and kill it when it is not gone after `grace` seconds."""
        self._asked = True
        self.signal_group(number)
        with trio.move_on_after(grace):
            return await self.wait()
        logger.warning("process_killed", actor=self.command.owner, pid=self.pid, grace=grace)
        return await self.kill()

    async def kill(self) -> Exit:
        """Kill the group now."""
        self._asked = True
        self._kill_group()
        return await self.wait()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the group, if its leader is still there."""
        if self._process is not None and self._process.returncode is None and self.pid:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                return

    def _kill_group(self) -> None:
        """Kill leader and members; members that the leader left are ours if they are marked."""
        if self._process is not None and self._process.returncode is None:
            self.signal_group(signal.SIGKILL)
            return
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return
        guardian.end_group(self.pid, -1, self._registry.marker.encode())

    async def send(self, data: bytes) -> None:
        """Write to its standard input. Raises BrokenResourceError when nobody reads it any more."""
        if self._process is None or self._process.stdin is None:
            raise trio.ClosedResourceError("no standard input")
        await self._process.stdin.send_all(data)

    async def _read_output(
        self, stream: trio.abc.ReceiveStream | None, on_line: Callable[[str], None] | None
    ) -> None:
        assert stream is not None
        buffer = b""
        try:
            async for chunk in stream:
                # Programs that draw progress end their lines with a carriage return.
                *lines, buffer = (buffer + chunk).replace(b"\r", b"\n").split(b"\n")
                if len(buffer) > LINE_BYTES:
                    lines.append(buffer)
                    buffer = b""
                self._take(lines, on_line)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            logger.debug("output_closed", pid=self.pid)
        self._take([buffer], on_line)

    def _take(self, lines: list[bytes], on_line: Callable[[str], None] | None) -> None:
        for raw in lines:
            line = raw[:LINE_BYTES].decode("utf-8", "replace").strip()
            if line:
                self.lines.append(line)
                if on_line is not None:
                    on_line(line)

    def last_lines(self, count: int = 5) -> list[str]:
        """The newest lines of its output."""
        return list(self.lines)[-count:]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a group uses: seconds of processor time since its start, bytes of resident memory."""

    cpu_seconds: float
    memory_bytes: int
    processes: int


_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def group_usage(groups: set[int]) -> dict[int, Usage]:
    """Usage of each group, from one look at /proc (proc(5): fields 5, 14, 15 and 24 of stat)."""
    found: dict[int, Usage] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        group = int(fields[2])
        if group in groups:
            before = found.get(group, Usage(0.0, 0, 0))
            cpu = (int(fields[11]) + int(fields[12])) / _TICKS
            found[group] = Usage(
                before.cpu_seconds + cpu,
                before.memory_bytes + int(fields[21]) * _PAGE,
                before.processes + 1,
            )
    return found


class _Identity(TypedDict, total=False):
    """How subprocess.Popen is told of another user."""

    user: int
    group: int
    extra_groups: list[int]


def _as_user(name: str | None) -> _Identity:
    if name is None:
        return {}
    found = pwd.getpwnam(name)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


def _base_environment() -> dict[str, str]:
    """What every process gets of ours: enough to find programs, and none of our secrets."""
    keep = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME")
    return {name: os.environ[name] for name in keep if name in os.environ}
