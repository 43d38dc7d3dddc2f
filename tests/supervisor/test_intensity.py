"""Restart intensity: at most `limit` restarts in any window of `seconds`. Pure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.intensity import Intensity, RestartWindow


def test_as_many_as_the_limit_are_allowed_and_not_one_more() -> None:
    window = RestartWindow(Intensity(limit=3, seconds=60))
    assert [window.allow(t) for t in (0.0, 1.0, 2.0, 3.0)] == [True, True, True, False]


def test_a_limit_of_zero_allows_none() -> None:
    window = RestartWindow(Intensity(limit=0, seconds=60))
    assert not window.allow(0.0)
    assert window.left(0.0) == 0


def test_a_restart_counts_for_less_than_the_window_and_not_at_its_end() -> None:
    window = RestartWindow(Intensity(limit=1, seconds=60))
    assert window.allow(100.0)
    assert not window.allow(159.999)
    assert window.allow(160.0)


def test_the_window_slides_over_each_restart_and_does_not_jump() -> None:
    window = RestartWindow(Intensity(limit=2, seconds=10))
    assert window.allow(0.0)
    assert window.allow(9.0)
    assert window.left(9.5) == 0
    assert window.left(10.0) == 1
    assert window.allow(10.0)
    # The one at 9 still counts: a window that jumped at 10 would allow this.
    assert not window.allow(11.0)
    assert window.left(19.0) == 1


def test_a_refused_restart_does_not_count() -> None:
    window = RestartWindow(Intensity(limit=1, seconds=10))
    assert window.allow(0.0)
    assert not window.allow(9.0)
    assert window.allow(10.0)


def test_cleared_it_forgets_all() -> None:
    window = RestartWindow(Intensity(limit=1, seconds=10))
    assert window.allow(0.0)
    window.clear()
    assert window.left(0.0) == 1
    assert window.allow(0.0)


@given(
    st.integers(0, 5),
    st.integers(1, 20),
    st.lists(st.integers(0, 7), max_size=60),
)
def test_it_is_what_counting_the_last_window_by_hand_gives(
    limit: int, seconds: int, steps: list[int]
) -> None:
    window = RestartWindow(Intensity(limit, float(seconds)))
    allowed: list[float] = []
    now = 0.0
    for step in steps:
        now += step
        recent = [t for t in allowed if t > now - seconds]
        assert window.left(now) == limit - len(recent)
        assert window.allow(now) == (len(recent) < limit)
        if len(recent) < limit:
            allowed.append(now)
