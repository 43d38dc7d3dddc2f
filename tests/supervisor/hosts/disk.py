"""Run as a program on a small disk: write until it refuses, free some, write again.

Prints what it saw as one JSON object. A file fills the disk, and is deleted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import trio

import supervisor.store
from supervisor.errors import StoreUnavailable
from supervisor.event import Topics
from supervisor.transaction import Transaction
from tests.supervisor.kit import Bench, word_migrations, words

supervisor.store.PROBE_EVERY = 0.05


def put_much(tx: Transaction, word: str) -> int:
    tx.execute("INSERT INTO words (word) VALUES (?)", (word + "x" * 20_000,))
    return tx.emit("word.kept", f"word/{word}")


async def kept(bench: Bench) -> list[str]:
    return [word.rstrip("x") for word in await bench.store.read(words)]


async def put_until_refused(bench: Bench, answered: list[str]) -> str:
    for n in range(10_000):
        try:
            await bench.store.write(put_much, str(n))
        except StoreUnavailable as error:
            return str(error)
        answered.append(str(n))
    raise AssertionError("the disk takes everything")


async def put_batch(bench: Bench) -> list[str]:
    """Twenty at once, too much for what is left: how each ended."""
    ends: list[str] = []

    async def one(n: int) -> None:
        try:
            await bench.store.write(put_much, f"batch{n}")
        except StoreUnavailable as error:
            ends.append(f"{error.code}: {error}")
        else:
            ends.append("kept")

    async with trio.open_nursery() as writers:
        for n in range(20):
            writers.start_soon(one, n)
    return ends


async def full(folder: Path, nursery: trio.Nursery) -> dict[str, object]:
    filler = folder / "filler"
    if not filler.exists():
        filler.write_bytes(bytes(400_000))
    bench = await Bench(folder / "var", [word_migrations]).start(nursery)
    reader = bench.log.reader(None, Topics(["store"]), bench.store)
    answered: list[str] = []
    refused = await put_until_refused(bench, answered)
    batch = await put_batch(bench)
    # Not read yet, so that it comes from the full disk and not from a cache.
    kept_full, failing = await kept(bench), bench.store.failing
    filler.unlink()
    told = await reader.read()
    assert isinstance(told, list)
    seq = await bench.store.write(put_much, "again")
    recovered = bench.store.failing is None
    await bench.close()
    return {
        "answered": answered,
        "refused": refused,
        "batch": sorted(set(batch)),
        "kept_full": kept_full,
        "failing": failing,
        "told": [e.type for e in told],
        "reason": json.loads(bytes(told[0].data))["reason"],
        "seqs": [e.seq for e in bench.published],
        "seq": seq,
        "recovered": recovered,
    }


async def main() -> None:
    folder = Path(sys.argv[1])
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            result = await full(folder, nursery)
    print(json.dumps(result))


if __name__ == "__main__":
    assert subprocess.run(["mountpoint", "-q", sys.argv[1]], check=False).returncode == 0
    trio.run(main)
