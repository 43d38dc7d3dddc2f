"""No process of ours outlives us, and none that is not ours is touched.

Three nets, one behind the other. The guardian (guardian.py) kills what runs when the appliance is
killed. Every process carries a marker in its environment that names this state folder and boot.
And its pid and start time are in the store, for programs that overwrite their environment. What
the guardian missed is found by marker or by pid and start time at the next start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import trio

from supervisor import guardian
from supervisor.event import timestamp
from supervisor.log import logger
from supervisor.service import Context, Service
from supervisor.transaction import Reading, Transaction

# A guardian that does not take its farewell within this is killed, in seconds.
FAREWELL = 1.0
VARIABLE = "SWITCHBOARD_PROCESS_OF"


class Registry:
    """All process groups of this boot; what the guardian and the store know, come from here."""

    def __init__(self, instance: str, boot: int) -> None:
        self.instance = instance
        self.boot = boot
        self.groups: dict[int, tuple[int, str]] = {}
        self._guardian: subprocess.Popen[bytes] | None = None

    @property
    def marker(self) -> str:
        """`NAME=VALUE`, part of the environment of every process we start."""
        return f"{VARIABLE}={self.instance}:{self.boot}"

    def environment(self) -> dict[str, str]:
        """The marker as a mapping."""
        name, _, value = self.marker.partition("=")
        return {name: value}

    def add(self, pid: int, owner: str) -> int:
        """Note a group just started; its start time in clock ticks since boot (0: gone already)."""
        started = guardian.start_time(pid) or 0
        self.groups[pid] = (started, owner)
        self._tell(f"+{pid} {started}\n")
        return started

    def remove(self, pid: int) -> None:
        """Note that a group is gone."""
        if self.groups.pop(pid, None) is not None:
            self._tell(f"-{pid}\n")

    def _tell(self, line: str) -> None:
        if self._guardian is not None:
            self._send(self._guardian, line)

    def _send(self, to: subprocess.Popen[bytes], line: str) -> None:
        if to.stdin is not None:
            try:
                os.write(to.stdin.fileno(), line.encode())
            except (BrokenPipeError, BlockingIOError) as error:
                # Gone, or it reads nothing: its service tells the next one all of it.
                logger.warning("guardian_unreachable", error=str(error))
                to.kill()

    def service(self) -> Service:
        """Keeps a guardian running."""
        return _Guardian(self)

    # -- for the guardian's service -------------------------------------------

    def begin_guard(self) -> subprocess.Popen[bytes]:
        """Start a guardian and tell it of all groups there are."""
        script = Path(guardian.__file__)
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), self.marker],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env={},
        )
        assert self._guardian.stdin is not None
        os.set_blocking(self._guardian.stdin.fileno(), False)
        for pid, (started, _owner) in self.groups.items():
            self._tell(f"+{pid} {started}\n")
        return self._guardian

    def end_guard(self) -> None:
        """Say farewell, if it is still there: everything has been stopped in order."""
        ended, self._guardian = self._guardian, None
        if ended is not None:
            if ended.poll() is None:
                self._send(ended, "bye\n")
            if ended.stdin is not None:
                ended.stdin.close()
            try:
                ended.wait(FAREWELL)
            except subprocess.TimeoutExpired:
                ended.kill()
                ended.wait()


class _Guardian(Service):
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def run(self, context: Context) -> None:
        process = self._registry.begin_guard()
        context.os_pid = process.pid
        context.ready()
        try:
            while not context.stopping:
                with trio.move_on_after(1.0):
                    await context.stopped()
                if process.poll() is not None:
                    raise RuntimeError(f"the guardian ended with status {process.returncode}")
        finally:
            self._registry.end_guard()


# -- the store's side -----------------------------------------------------------


def note(tx: Transaction, pid: int, started: int, boot: int, owner: str, command: str) -> None:
    """Keep a process in the store, by pid and start time."""
    tx.execute(
        "INSERT INTO processes (pid, started, boot, owner, command, ts) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (pid, started) DO NOTHING",
        (pid, started, boot, owner, command, timestamp()),
    )


def drop(tx: Transaction, pid: int, started: int) -> None:
    """Forget a process that has ended."""
    tx.execute("DELETE FROM processes WHERE pid = ? AND started = ?", (pid, started))


def noted(db: Reading) -> list[tuple[int, int, str]]:
    """All that the store knows: (pid, start time, owner)."""
    return [
        (pid, started, owner)
        for pid, started, owner in db.all("SELECT pid, started, owner FROM processes")
    ]


def forget_all(tx: Transaction, ended: list[tuple[int, str]]) -> None:
    """Empty the list at the start, and tell what was ended."""
    tx.execute("DELETE FROM processes")
    for pid, owner in ended:
        tx.emit("process.orphan_ended", "system/processes", {"pid": pid, "owner": owner})


def sweep(instance: str, boot: int, known: list[tuple[int, int, str]]) -> list[tuple[int, str]]:
    """End what is left from before this boot: (pid, owner) of each. Blocking; run in a thread.

    Ours is what carries this instance's marker of another boot, and what has the pid and the start
    time of a process that we noted, with its group.
    """
    prefix = f"{VARIABLE}={instance}:".encode()
    current = f"{VARIABLE}={instance}:{boot}".encode()
    targets: dict[int, str] = {}
    for pid, started, owner in known:
        if guardian.start_time(pid) == started:
            targets.update(dict.fromkeys(guardian.members(pid) or [pid], owner))
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            variables = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(v.startswith(prefix) and v != current for v in variables):
            targets.setdefault(int(name), "marked")
    ended = []
    for pid, owner in targets.items():
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
        ended.append((pid, owner))
    return ended
