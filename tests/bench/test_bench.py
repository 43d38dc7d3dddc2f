"""The benches run and their rows are whole. How fast anything is, is not tested: `make bench`."""

from __future__ import annotations

import json

import pytest

from tests.bench.__main__ import BENCHES, measure, table
from tests.bench.kit import Options, Row, Target

CHEAP = ("tell", "ask", "idle", "durable")


def test_the_cheap_benches_give_whole_rows() -> None:
    rows, broken = measure(list(CHEAP), Options(quick=True))
    assert not broken
    assert len(rows) == 7
    for row in rows:
        plain = json.loads(json.dumps(row.plain()))
        assert set(plain) == {"name", "value", "unit", "against", "ratio", "target", "met"}
        assert plain["value"] > 0
        assert plain["ratio"] is None or plain["ratio"] > 0
        assert (plain["met"] is None) == (plain["target"] is None)
    assert table(rows).row_count == len(rows)


@pytest.mark.parametrize(
    ("target", "value", "met"),
    [
        (Target(">=", 3), 3.0, True),
        (Target(">", 1), 1.0, False),
        (Target("<=", 2), 2.1, False),
        (Target("<", 12, "KiB"), 11.9, True),
    ],
)
def test_a_target_is_met_within_its_bound(target: Target, value: float, met: bool) -> None:
    assert target.met(value) is met


def test_a_row_is_judged_by_its_ratio_or_by_its_value_as_the_target_says() -> None:
    assert Row("a", 1.0, "s", "b", 4.0, Target("<=", 3)).met is False
    assert Row("a", 1.0, "KiB", "b", 4.0, Target("<=", 3, "KiB")).met is True
    assert Row("a", 1.0, "s").met is None


def test_every_bench_is_a_module_that_says_what_it_compares() -> None:
    for name in BENCHES:
        module = __import__(f"tests.bench.{name}", fromlist=["run"])
        assert module.__doc__
        assert callable(module.run)
