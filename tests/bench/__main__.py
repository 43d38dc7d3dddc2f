"""`python -m tests.bench [name ...] [--quick] [--long]`: the table, and var/bench.json.

Exits with 0 also when a target is missed: the machine may be busy. A bench that breaks is shown,
and then the status is 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import traceback

from rich.console import Console
from rich.table import Table

from tests.bench.kit import ROOT, Options, Row

BENCHES = (
    "tell", "ask", "idle", "durable", "status", "fanout", "start", "cycles", "drain", "calls",
    "recording",
)  # fmt: skip


def measure(names: list[str], options: Options) -> tuple[list[Row], list[str]]:
    """Rows of the benches of these names, and the names of those that broke."""
    rows: list[Row] = []
    broken: list[str] = []
    for name in names:
        began = time.perf_counter()
        try:
            rows += importlib.import_module(f"tests.bench.{name}").run(options)
        except Exception:
            broken.append(name)
            traceback.print_exc()
        took = time.perf_counter() - began
        print(f"{name}: {took:.1f} s", file=sys.stderr, flush=True)
    return rows, broken


def table(rows: list[Row]) -> Table:
    """For the terminal."""
    shown = Table()
    for heading, justify in (
        ("what", "left"),
        ("value", "right"),
        ("unit", "left"),
        ("against", "left"),
        ("ratio", "right"),
        ("target", "right"),
        ("met", "left"),
    ):
        shown.add_column(heading, justify="right" if justify == "right" else "left")
    for row in rows:
        shown.add_row(
            row.name,
            f"{row.value:,.0f}" if abs(row.value) >= 100 else f"{row.value:,.3g}",
            row.unit,
            row.against,
            "" if row.ratio is None else f"{row.ratio:.2f}x",
            "" if row.target is None else str(row.target),
            {None: "", True: "yes", False: "no"}[row.met],
        )
    return shown


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: only that it works")
    parser.add_argument("--long", action="store_true", help="100,000 cycles with real processes")
    given = parser.parse_args()
    unknown = set(given.names) - set(BENCHES)
    if unknown:
        parser.error(f"no such bench: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    rows, broken = measure(given.names or list(BENCHES), Options(given.quick, given.long))
    Console(width=None if sys.stdout.isatty() else 140).print(table(rows))
    target = ROOT / "var" / "bench.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps([row.plain() for row in rows], indent=1) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
