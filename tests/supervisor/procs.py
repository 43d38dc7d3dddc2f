"""What the tests of operating-system processes share: start one, wait for a word or for its end."""

from __future__ import annotations

import os
import secrets

import trio

from supervisor import guardian
from supervisor.orphans import Registry
from supervisor.process import Command, Process

# Two below the shell: one in its group, one in a session of its own.
FAMILY = "sleep 300 & echo in $!; setsid sleep 300 & echo out $!; echo ready; wait"


def registry(boot: int = 1) -> Registry:
    """Of an appliance that no other test knows."""
    return Registry(secrets.token_hex(8), boot)


class Words:
    """The lines of a process, as they come."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = trio.Event()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        self._more.set()
        self._more = trio.Event()

    async def starting(self, word: str) -> str:
        """What follows a word at the start of a line, when that has come."""
        while True:
            for line in self.lines:
                if line.startswith(word):
                    return line[len(word) :].strip()
            await self._more.wait()


async def run(
    nursery: trio.Nursery, script: str, of: Registry | None = None, **command: object
) -> tuple[Process, Words]:
    """A shell script, running."""
    words = Words()
    spec = Command(["sh", "-c", script], owner="/test", **command)  # type: ignore[arg-type]
    process = Process(spec, of or registry(), words)
    await nursery.start(process.run)
    return process, words


async def gone(pid: int, within: float = 10.0) -> None:
    """Wait until a process, anybody's, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with trio.fail_after(within):
            await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def alive(pid: int) -> bool:
    """Is it there, and no zombie?"""
    return guardian.start_time(pid) is not None and pid in guardian.members(os.getpgid(pid))
