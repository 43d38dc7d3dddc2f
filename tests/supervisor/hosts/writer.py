"""Run as a program: write without end, and say of each write on stdout that it was answered."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from tests.supervisor.kit import Bench, put, word_migrations

WRITERS = 8


async def write(bench: Bench, name: int) -> None:
    n = 0
    while True:
        n += 1
        seq = await bench.store.write(put, f"{os.getpid()}.{name}.{n}")
        os.write(1, f"{os.getpid()}.{name}.{n} {seq}\n".encode())


async def main() -> None:
    async with trio.open_nursery() as nursery:
        bench = await Bench(Path(sys.argv[1]), [word_migrations]).start(nursery)
        for name in range(WRITERS):
            nursery.start_soon(write, bench, name)


if __name__ == "__main__":
    trio.run(main)
