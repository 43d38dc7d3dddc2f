"""The states of a call: what each input comes to in each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from actors.call.machine import Standing, Status, Verdict, end, event, idle

LATE = 60.0
OVER = [Status.ENDED, Status.FAILED, Status.CANCELLED]
GOES_ON = Standing(Status.IN_PROGRESS)


def said(status: Status, since: float = 1.0) -> Standing:
    """Its gateway said that it was over."""
    return Standing(status, end_hash="a", seconds_since=since)


def guessed(since: float = 1.0) -> Standing:
    """It was ended because nobody said anything."""
    return Standing(Status.FAILED, guessed=True, seconds_since=since)


def test_all_but_one_of_its_states_are_final() -> None:
    assert [status for status in Status if not status.terminal] == [Status.IN_PROGRESS]


# -- the end ----------------------------------------


def test_a_call_that_goes_on_can_be_ended() -> None:
    assert end(GOES_ON, "a", LATE) is Verdict.TAKEN


@pytest.mark.parametrize("since", [0.0, LATE, 10 * LATE])
@pytest.mark.parametrize("status", OVER)
def test_the_same_end_again_changes_nothing_however_late(status: Status, since: float) -> None:
    assert end(said(status, since), "a", LATE) is Verdict.SAME


@pytest.mark.parametrize("since", [0.0, LATE, 10 * LATE])
@pytest.mark.parametrize("status", OVER)
def test_another_end_is_refused(status: Status, since: float) -> None:
    assert end(said(status, since), "b", LATE) is Verdict.CONFLICT


@pytest.mark.parametrize(
    ("since", "verdict"),
    [(0.0, Verdict.TAKEN), (LATE, Verdict.TAKEN), (LATE + 0.001, Verdict.LATE)],
)
def test_what_the_gateway_says_replaces_what_was_guessed(since: float, verdict: Verdict) -> None:
    assert end(guessed(since), "a", LATE) is verdict


# -- nobody says anything ----------------------------------------


def test_a_call_of_which_nobody_says_anything_is_ended() -> None:
    assert idle(GOES_ON) is Verdict.TAKEN


@pytest.mark.parametrize("standing", [*map(said, OVER), guessed()])
def test_one_that_is_over_is_not_ended_again(standing: Standing) -> None:
    assert idle(standing) is Verdict.SAME


# -- events ----------------------------------------


def test_events_are_taken_while_it_goes_on_however_long() -> None:
    assert event(Standing(Status.IN_PROGRESS, seconds_since=10 * LATE), LATE) is Verdict.TAKEN


@pytest.mark.parametrize("make", [lambda s: said(Status.ENDED, s), guessed])
@pytest.mark.parametrize(
    ("since", "verdict"),
    [(0.0, Verdict.TAKEN), (LATE, Verdict.TAKEN), (LATE + 0.001, Verdict.LATE)],
)
def test_events_are_taken_for_a_while_after_the_end(
    make: Callable[[float], Standing], since: float, verdict: Verdict
) -> None:
    assert event(make(since), LATE) is verdict
