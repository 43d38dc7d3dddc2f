"""The life of a task: every transition there is, and every input that means nothing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.egress.machine import FINISHINGS, Illegal, Input, State, Step, step

ENQUEUED, PROCESSING, STOPPING = State.ENQUEUED, State.PROCESSING, State.STOPPING
STOPPED, FAILED, TIMEOUT = State.STOPPED, State.FAILED, State.TIMEOUT
CLAIM, STOP, DONE = Input.CLAIM, Input.STOP, Input.DONE
FAIL, AGED, LOST = Input.FAIL, Input.AGED, Input.LOST

# With one retry used of three.
TABLE: dict[tuple[State, Input], Step] = {
    # Enqueued: nobody works on it, so that a stop is over at once.
    (ENQUEUED, CLAIM): Step(PROCESSING, "", 1),
    (ENQUEUED, STOP): Step(STOPPED, "user_stop", 1),
    (ENQUEUED, AGED): Step(TIMEOUT, "not_claimed", 1),
    # What was begun is not stopped before it is finished.
    (ENQUEUED, Input.FINISH): Step(STOPPING, "", 1),
    (PROCESSING, Input.FINISH): Step(STOPPING, "", 1),
    (STOPPING, Input.FINISH): Step(STOPPING, "", 1),
    # Processing: claimed again after a restart of the appliance, which is no failure of its own.
    (PROCESSING, CLAIM): Step(PROCESSING, "", 1),
    (PROCESSING, STOP): Step(STOPPING, "", 1),
    (PROCESSING, DONE): Step(STOPPED, "completed", 1),
    (PROCESSING, FAIL): Step(FAILED, "failed", 1),
    (PROCESSING, LOST): Step(ENQUEUED, "", 2),
    # Stopping: whoever claims it has only to finish it; a second stop changes nothing.
    (STOPPING, CLAIM): Step(STOPPING, "", 1),
    (STOPPING, STOP): Step(STOPPING, "", 1),
    (STOPPING, DONE): Step(STOPPED, "user_stop", 1),
    (STOPPING, FAIL): Step(FAILED, "failed", 1),
    (STOPPING, LOST): Step(STOPPING, "", 2),
}
EVERY = list(itertools.product(State, Input))


@pytest.mark.parametrize(("state", "what"), TABLE, ids=str)
def test_a_transition(state: State, what: Input) -> None:
    assert step(state, what, 1, 3) == TABLE[state, what]


@pytest.mark.parametrize(("state", "what"), [pair for pair in EVERY if pair not in TABLE], ids=str)
def test_what_is_not_in_the_table_is_illegal(state: State, what: Input) -> None:
    with pytest.raises(Illegal, match=f"{what.value} while {state.value}"):
        step(state, what, 0, 3)


def test_nothing_follows_a_terminal_state() -> None:
    assert {s for s in State if s.terminal} == {STOPPED, FAILED, TIMEOUT}
    assert not [pair for pair in TABLE if pair[0].terminal]


@pytest.mark.parametrize("state", [PROCESSING, STOPPING])
def test_a_worker_is_replaced_as_often_as_the_limit_says(state: State) -> None:
    retries, seen = 0, []
    while True:
        found = step(state, LOST, retries, 3)
        seen.append((found.state, found.reason))
        if found.state.terminal:
            break
        retries = found.retries
    back = ENQUEUED if state is PROCESSING else STOPPING
    # What only has to be made files of is tried some times more.
    times = 3 if state is PROCESSING else 3 + FINISHINGS
    assert seen == [(back, "")] * times + [(FAILED, "retries_exhausted")]
    assert found.retries == times


def test_a_reason_that_is_given_is_kept_unless_somebody_stopped_it() -> None:
    assert step(PROCESSING, DONE, 0, 3, "max_duration").reason == "max_duration"
    assert step(PROCESSING, FAIL, 0, 3, "disk_full").reason == "disk_full"
    assert step(STOPPING, FAIL, 0, 3, "disk_full").reason == "disk_full"
    assert step(STOPPING, DONE, 0, 3, "source_ended").reason == "user_stop"


@given(st.lists(st.sampled_from(Input), max_size=40))
def test_whatever_happens_it_ends_at_most_once_and_says_why(inputs: list[Input]) -> None:
    state, retries = ENQUEUED, 0
    for what in inputs:
        try:
            found = step(state, what, retries, 3)
        except Illegal:
            continue
        assert not state.terminal
        assert retries <= found.retries <= 3
        assert bool(found.reason) == found.state.terminal
        state, retries = found.state, found.retries
