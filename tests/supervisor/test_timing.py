"""How long things take: quantiles out of a histogram of constant size."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.timing import Timings


def test_without_any_there_is_no_quantile() -> None:
    assert Timings().quantile(0.5) is None


@given(
    st.lists(st.integers(0, 10**13), min_size=1, max_size=200),
    st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]),
)
def test_a_quantile_is_never_too_small_and_at_most_an_eighth_too_large(
    nanoseconds: list[int], q: float
) -> None:
    timings = Timings()
    for value in nanoseconds:
        timings.add(value)
    exact = sorted(nanoseconds)[math.ceil(q * len(nanoseconds)) - 1]
    got = timings.quantile(q)
    assert got is not None
    assert exact <= round(got * 1e9) <= exact * 9 / 8 + 1
    assert timings.count == len(nanoseconds)


def test_it_does_not_grow_with_what_it_counts() -> None:
    timings = Timings()
    for value in range(1, 200_000):
        timings.add(value * 997)
    assert len(timings._buckets) <= 8 * 64
    assert timings.quantile(0.5) == pytest.approx(100_000 * 997 / 1e9, rel=1 / 8)
