"""The processes of one page: started one after the other, ended the other way round.

A part that ends is the end of the page. A cancelled page does not cancel them, which would kill
all at once and leave what only an orderly end removes: it ends them by `end`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from actors.egress.page.request import told
from actors.egress.page.verdict import Verdict
from supervisor import guardian
from supervisor.orphans import Registry
from supervisor.process import Command, Exit, Process


class _Part:
    def __init__(self, process: Process, grace: float) -> None:
        self.process = process
        self.grace = grace
        self.shield = trio.CancelScope(shield=True)
        # It runs, or never will.
        self.begun = trio.Event()
        self.refused: str | None = None

    @property
    def running(self) -> bool:
        return self.process.pid != 0 and self.process.exit is None


class Parts:
    """All of one page, in the order of their start."""

    def __init__(self, registry: Registry, verdict: Verdict) -> None:
        self._registry = registry
        self._verdict = verdict
        self._parts: list[_Part] = []
        self._ending = False

    @property
    def groups(self) -> list[int]:
        """The process groups that run."""
        return [part.process.pid for part in self._parts if part.running]

    async def start(
        self,
        nursery: trio.Nursery,
        name: str,
        command: Command,
        take_line: Callable[[str], None],
        grace: float = 0.0,
        expected: Callable[[], bool] = lambda: False,
    ) -> Process:
        """Start one. `name` in words; in the end it has `grace` seconds to go by itself.

        When it ends, that is the end of the page, except as `expected` then says.
        """
        part = _Part(Process(command, self._registry, take_line), grace)
        self._parts.append(part)
        nursery.start_soon(self._keep, part, name, expected)
        await part.begun.wait()
        if part.refused is not None:
            await self._verdict.fail(f"{name} cannot be started: {part.refused}")
        return part.process

    async def _keep(self, part: _Part, name: str, expected: Callable[[], bool]) -> None:
        # Not by `start` of the nursery of the page: once that is cancelled, it would wait for the
        # end of what it has started, which is shielded.
        with part.shield:
            async with trio.open_nursery() as nursery:
                try:
                    if not self._ending:
                        await nursery.start(part.process.run)
                except (OSError, KeyError) as error:
                    part.refused = str(error)
                part.begun.set()
            if part.process.exit is not None and not expected():
                self._verdict.lost(f"{name} {_in_words(part.process.exit, part.process)}")

    async def end(self, marker: bytes) -> None:
        """End all that run, the last first, and what has left its group; return when it is gone.

        That has `marker`, NAME=VALUE, in its environment.
        """
        self._ending = True
        for part in reversed(self._parts):
            await part.begun.wait()
            if part.running and part.grace:
                await part.process.stop(part.grace)
            elif part.running:
                await part.process.kill()
        for pid in await trio.to_thread.run_sync(self._end_strays, marker):
            await _gone(pid)

    def _end_strays(self, marker: bytes) -> list[int]:
        """Kill what is marked as of this page; what has not ended yet. Blocking."""
        guardian.end_marked(marker)
        strays = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        ours = {pid for pid in strays if guardian.marked(pid, marker)}
        groups = [part.process.pid for part in self._parts if part.process.pid]
        return sorted(ours.union(*(guardian.members(group) for group in groups)))

    def give_up(self) -> None:
        """After `end`, or when it took too long: nothing is waited for any more."""
        for part in self._parts:
            part.shield.shield = False


async def _gone(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _in_words(how: Exit, process: Process) -> str:
    last = [told(line) for line in process.last_lines(3)]
    return f"{how} (last lines: {' | '.join(last)})" if how.status > 0 and last else str(how)
