"""A small disk for tests, seen by nobody who does not know where: a tmpfs of a mount namespace."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

UNSHARE = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]


class Disk:
    """`root` is its folder, seen through the process that keeps it mounted."""

    def __init__(self, mounted: Path, keeper: subprocess.Popen[bytes]) -> None:
        self.root = Path(f"/proc/{keeper.pid}/root{mounted}")
        self._mounted = mounted
        self._keeper = keeper

    def fill(self, room: int = 0) -> None:
        """Use up the disk, but for so many bytes."""
        with suppress(OSError), (self.root / "filler").open("wb", 0) as file:
            while True:
                file.write(bytes(4096))
        os.truncate(self.root / "filler", (self.root / "filler").stat().st_size - room)

    def clear(self) -> None:
        """And give it back."""
        (self.root / "filler").unlink()

    def refuse(self) -> None:
        """From now on nothing can be written or deleted, as after an error of the disk."""
        self.run(f'mount -o remount,ro "{self._mounted}"')

    def allow(self) -> None:
        """It takes writes again."""
        self.run(f'mount -o remount,rw "{self._mounted}"')

    def run(self, script: str) -> None:
        """Do something where it is mounted, and return when it is done."""
        to, back = _pipes(self._keeper)
        to.write(f"{script} && echo done || echo failed\n".encode())
        to.flush()
        assert back.readline() == b"done\n", script


def _pipes(keeper: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    return keeper.stdin, keeper.stdout


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Disk]:
    """One of a size (`2m`), mounted below `folder`; it goes with its end."""
    mounted = folder / "disk"
    mounted.mkdir()
    with subprocess.Popen(
        [*UNSHARE, "sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as keeper:
        try:
            disk = Disk(mounted, keeper)
            disk.run(f'mount -t tmpfs -o size={size} tmpfs "{mounted}"')
            yield disk
        finally:
            keeper.kill()
