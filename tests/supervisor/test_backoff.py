"""Waiting times between attempts: exponential, with jitter and a cap. Pure."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.backoff import Backoff


def rng() -> random.Random:
    return random.Random(7)


def test_without_jitter_it_doubles_up_to_the_cap() -> None:
    backoff = Backoff(first=0.1, factor=2.0, cap=1.0, jitter=0.0)
    delays = [backoff.delay(n, rng()) for n in range(1, 8)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])


def test_before_the_first_failure_there_is_no_wait() -> None:
    assert Backoff().delay(0, rng()) == 0.0


def test_a_first_wait_of_zero_is_no_wait_at_all() -> None:
    assert Backoff(first=0.0).delay(5, rng()) == 0.0


@given(st.integers(1, 10_000_000), st.floats(0.0, 1.0), st.integers(0, 2**32))
def test_jitter_stays_within_its_share_and_never_above_the_cap(
    failures: int, jitter: float, seed: int
) -> None:
    even = Backoff(jitter=0.0).delay(failures, rng())
    delay = Backoff(jitter=jitter).delay(failures, random.Random(seed))
    assert even * (1 - jitter) - 1e-9 <= delay <= min(even * (1 + jitter), 30.0) + 1e-9


def test_many_that_fail_together_do_not_come_back_together_not_even_at_the_cap() -> None:
    backoff, source = Backoff(first=1.0, cap=30.0), rng()
    for failures in (1, 5, 6, 20):
        delays = [backoff.delay(failures, source) for _ in range(1000)]
        assert len(set(delays)) == 1000, failures


@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0, 10.0])
def test_after_millions_of_failures_it_neither_overflows_nor_falls(factor: float) -> None:
    backoff = Backoff(first=0.1, factor=factor, cap=30.0, jitter=0.0)
    expected = 0.1 if factor == 1.0 else 30.0
    for failures in (10_000, 5_000_000, 10**12):
        assert backoff.delay(failures, rng()) == pytest.approx(expected)


def test_a_first_wait_above_the_cap_is_the_cap() -> None:
    assert Backoff(first=50.0, cap=30.0, jitter=0.0).delay(3, rng()) == 30.0


def test_after_healthy_time_it_starts_over() -> None:
    backoff = Backoff(healthy_after=60.0)
    assert backoff.failures_after(0, 0.0) == 1
    assert backoff.failures_after(9, 59.999) == 10
    assert backoff.failures_after(9, 60.0) == 1
