"""Memory after many start/stop cycles of a trivial gateway: it must not grow.

A whole appliance in a process of its own; each cycle makes the gateway's actor, starts it, stops it
and puts the actor away, as a client's requests do. With real processes (10,000 cycles, or 100,000
with --long), and 100,000 cycles with a stub in the place of the process.
"""

from __future__ import annotations

import gc
import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import structlog
import trio

from actors.gateway import prepare
from actors.gateway.messages import StartGateway, StopGateway
from config.load import load
from main import Switchboard
from supervisor import log as logs
from supervisor.process import Exit
from tests.bench.kit import Options, Row, Target, folder, fresh, resident
from tests.bench.servers import free_port, write_config

MIB = 1024 * 1024
# Gateways that take turns at once: they share commits.
LANES = 16


def run(options: Options) -> list[Row]:
    """See the module."""
    real = 100_000 if options.long else options.pick(40, 10_000)
    stubbed = options.pick(100, 100_000)
    # What is bounded must be full before it is measured: the log keeps its newest 8192 events in
    # memory, SQLite's caches and malloc's arenas grow until about 36,000 cycles.
    warm_up, longer = options.pick(20, 3_000), options.pick(20, 40_000)
    with ThreadPoolExecutor() as pool:
        # Side by side: it is memory that is measured, not time.
        with_processes = pool.submit(fresh, "cycles:memory", real, warm_up, False)
        without = pool.submit(fresh, "cycles:memory", stubbed, longer, True)
    return [
        _row(f"memory after {real:,} start/stop cycles", warm_up, *with_processes.result()),
        _row(f"memory after {stubbed:,} cycles without a process", longer, *without.result()),
    ]


def _row(name: str, warm_up: int, before: int, after: int) -> Row:
    against = f"after {warm_up:,} cycles"
    grown = (after - before) / MIB
    return Row(name, grown, "MiB grown", against, after / before, Target("<", 5, "MiB"))


class _Stub:
    """Stands for a process: it starts at once, and ends when it is asked to."""

    pid = None

    def __init__(self, *_given: object) -> None:
        self._asked = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None]) -> Exit:
        task_status.started()
        await self._asked.wait()
        return Exit(0, asked=True)

    async def stop(self, _grace: float, _force: bool) -> None:
        self._asked.set()

    async def send(self, _data: bytes) -> None:
        return

    def last_lines(self) -> list[str]:
        return []


def memory(cycles: int, warm_up: int, stub: bool) -> tuple[int, int]:
    """Bytes of memory after the warm-up, and after so many cycles more."""
    if stub:
        vars(prepare)["ProcessRunner"] = _Stub
    with folder() as place:
        file = write_config(place, free_port(), secrets.token_hex(16), linger=0.0)
        return trio.run(_measure, file, cycles, warm_up)


async def _measure(file: Path, cycles: int, warm_up: int) -> tuple[int, int]:
    config = load(file)
    logs.configure(config.log.level)
    structlog.configure(cache_logger_on_first_use=True)
    board = Switchboard(config, partial(load, file))
    await board.prepare()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(board.run, lambda: None)
        await board.root.child.settled()
        await _turn(board, warm_up)
        before = _settled()
        await _turn(board, cycles)
        after = _settled()
        board.stop("measured")
    board.close()
    return before, after


def _settled() -> int:
    gc.collect()
    return resident()


async def _turn(board: Switchboard, cycles: int) -> None:
    left = cycles

    async def lane(gw_id: str) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            request = {"gw_id": gw_id, "room": "bench", "main_app": "trivial"}
            await board.router.ask(StartGateway(gw_id, "bench", "trivial", request), 30.0)
            await board.router.ask(StopGateway(gw_id), 30.0)
            while board.directory.find(gw_id) is not None:
                await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        for number in range(LANES):
            nursery.start_soon(lane, f"gw{number:02}")
