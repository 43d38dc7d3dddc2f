"""The processes of one page: started one after the other, ended the other way round.

A part that ends is the end of the page. A cancelled page does not cancel them, which would kill
all at once and leave what only an orderly end removes: it ends them by `end`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import trio

from actors.egress.page.place import Place
from actors.egress.page.request import told
from actors.egress.page.verdict import Verdict
from supervisor import guardian
from supervisor.orphans import Registry
from supervisor.process import Command, Exit, Process


@dataclass(frozen=True, slots=True)
class _Part:
    process: Process
    shield: trio.CancelScope
    grace: float


class Parts:
    """All of one page, in the order of their start."""

    def __init__(self, registry: Registry, place: Place, verdict: Verdict) -> None:
        self._registry = registry
        self._place = place
        self._verdict = verdict
        self._parts: list[_Part] = []

    @property
    def groups(self) -> list[int]:
        """The process groups that run."""
        return [part.process.pid for part in self._parts if part.process.exit is None]

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
        process = Process(command, self._registry, take_line)
        part = _Part(process, trio.CancelScope(shield=True), grace)

        async def keep(task_status: trio.TaskStatus[Process]) -> None:
            with part.shield:
                how = await process.run(task_status)
                if not expected():
                    self._verdict.lost(f"{name} {_in_words(how, process)}")

        try:
            await nursery.start(keep)
        except (OSError, KeyError) as error:
            await self._verdict.fail(f"{name} cannot be started: {error}")
        self._parts.append(part)
        return process

    async def end(self) -> None:
        """End all that run, the last first, and what has left its group; return when it is gone."""
        for part in reversed(self._parts):
            if part.process.exit is None:
                if part.grace:
                    await part.process.stop(part.grace)
                else:
                    await part.process.kill()
        for pid in await trio.to_thread.run_sync(self._end_strays):
            await _gone(pid)

    def _end_strays(self) -> list[int]:
        """Kill what is marked as of this page; what has not ended yet. Blocking."""
        marker = "=".join(self._place.variable).encode()
        guardian.end_marked(marker)
        strays = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        ours = {pid for pid in strays if guardian.marked(pid, marker)}
        return sorted(ours.union(*(guardian.members(part.process.pid) for part in self._parts)))

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
