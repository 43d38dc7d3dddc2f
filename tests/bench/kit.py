"""What the benches share: rows, medians of rounds side by side, and processes of their own."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
# Beside the state folder of `switchboard serve`: the same disk, not a memory file system.
SCRATCH = ROOT / "var" / "bench"
PATIENCE = 3600.0


@dataclass(frozen=True, slots=True)
class Options:
    """`quick`: small sizes, only to see that it works. `long`: what takes minutes, in full."""

    quick: bool = False
    long: bool = False

    def pick(self, quick: int, full: int) -> int:
        """A size or a count."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio (`unit` is `x`) or on the value itself."""

    sign: Literal[">=", ">", "<=", "<"]
    bound: float
    unit: str = "x"

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g} {self.unit}".replace(" x", "x")

    def met(self, value: float) -> bool:
        """Is it kept?"""
        match self.sign:
            case ">=":
                return value >= self.bound
            case ">":
                return value > self.bound
            case "<=":
                return value <= self.bound
            case "<":
                return value < self.bound


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a value, and how many times that of `against` it is."""

    name: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """None without a target."""
        if self.target is None:
            return None
        judged = self.ratio if self.target.unit == "x" else self.value
        assert judged is not None
        return self.target.met(judged)

    def plain(self) -> dict[str, Any]:
        """For var/bench.json."""
        shown = asdict(self)
        return {**shown, "target": str(self.target) if self.target else None, "met": self.met}


# -- rounds ---------------------------------------------------------------------


class Rounds:
    """What each contestant measured in each round; they take turns, so that noise meets all."""

    def __init__(self, count: int, *contestants: Callable[[], float]) -> None:
        self._measured: list[list[float]] = []
        for _ in range(count):
            turn = []
            for contestant in contestants:
                gc.collect()
                turn.append(contestant())
            self._measured.append(turn)

    def median(self, which: int) -> float:
        """Of one contestant."""
        return median(turn[which] for turn in self._measured)

    def ratio(self, which: int, against: int) -> float:
        """The median of the rounds' ratios: what slows a whole round down cancels out."""
        return median(turn[which] / turn[against] for turn in self._measured)


# -- processes and folders ------------------------------------------------------


def environment() -> dict[str, str]:
    """Of every process that a bench starts."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def fresh(function: str, *args: Any) -> Any:
    """Call `module:function` of this package in a process of its own; its result, as JSON."""
    argv = [sys.executable, "-m", "tests.bench.fresh", function, json.dumps(args)]
    done = subprocess.run(
        argv, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, timeout=PATIENCE, check=True
    )
    return json.loads(done.stdout)


def resident() -> int:
    """Bytes of memory that this process has now (proc(5): field 2 of statm)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def folder() -> Iterator[Path]:
    """A scratch folder on the disk that the appliance would use."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=SCRATCH) as name:
        yield Path(name)
