"""The life of a gateway: every transition there is, and every input that means nothing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.gateway.machine import (
    Effect,
    Exited,
    Input,
    Ready,
    Retry,
    Start,
    State,
    Step,
    Stop,
    step,
)

DOWN, STARTING, UP = State.DOWN, State.STARTING, State.UP
BACKOFF, RESTARTING, STOPPING = State.BACKOFF, State.RESTARTING, State.STOPPING

START, READY, RETRY = Start(), Ready(), Retry()
AGAIN, OVER = Exited(again=True), Exited(again=False)
GENTLY, FORCED = Stop(force=False), Stop(force=True)
INPUTS: tuple[Input, ...] = (START, READY, AGAIN, OVER, RETRY, GENTLY, FORCED)

SAVE, LAUNCH, JOIN = Effect.SAVE, Effect.LAUNCH, Effect.JOIN_STOP
TERMINATE, KILL = Effect.TERMINATE, Effect.KILL
STARTED, FAILED = Effect.ANSWER_STARTED, Effect.ANSWER_FAILED
INTERRUPTED, STOPPED = Effect.ANSWER_INTERRUPTED, Effect.ANSWER_STOPPED
REFUSE, QUEUE, LATER = Effect.REFUSE_RUNNING, Effect.QUEUE_START, Effect.SCHEDULE_RETRY

TABLE: dict[tuple[State, Input], Step] = {
    # Down: only a start means something; a stop is answered, because it is what was wanted.
    (DOWN, START): (STARTING, (SAVE, LAUNCH)),
    (DOWN, GENTLY): (DOWN, (STOPPED,)),
    (DOWN, FORCED): (DOWN, (STOPPED,)),
    # Starting: whoever asked is told how it went; it is not tried again behind its back.
    (STARTING, START): (STARTING, (REFUSE,)),
    (STARTING, READY): (UP, (SAVE, STARTED)),
    (STARTING, AGAIN): (DOWN, (SAVE, FAILED)),
    (STARTING, OVER): (DOWN, (SAVE, FAILED)),
    (STARTING, GENTLY): (STOPPING, (SAVE, INTERRUPTED, TERMINATE, JOIN)),
    (STARTING, FORCED): (STOPPING, (SAVE, INTERRUPTED, KILL, JOIN)),
    # Up: what dies is started again as far as its policy allows.
    (UP, START): (UP, (REFUSE,)),
    (UP, AGAIN): (BACKOFF, (SAVE, LATER)),
    (UP, OVER): (DOWN, (SAVE, FAILED)),
    (UP, GENTLY): (STOPPING, (SAVE, INTERRUPTED, TERMINATE, JOIN)),
    (UP, FORCED): (STOPPING, (SAVE, INTERRUPTED, KILL, JOIN)),
    # Backoff: nothing runs, so a stop is over at once.
    (BACKOFF, START): (BACKOFF, (REFUSE,)),
    (BACKOFF, RETRY): (RESTARTING, (SAVE, LAUNCH)),
    (BACKOFF, GENTLY): (DOWN, (SAVE, STOPPED)),
    (BACKOFF, FORCED): (DOWN, (SAVE, STOPPED)),
    # Restarting: as starting, but a failure is one more death.
    (RESTARTING, START): (RESTARTING, (REFUSE,)),
    (RESTARTING, READY): (UP, (SAVE, STARTED)),
    (RESTARTING, AGAIN): (BACKOFF, (SAVE, LATER)),
    (RESTARTING, OVER): (DOWN, (SAVE, FAILED)),
    (RESTARTING, GENTLY): (STOPPING, (SAVE, INTERRUPTED, TERMINATE, JOIN)),
    (RESTARTING, FORCED): (STOPPING, (SAVE, INTERRUPTED, KILL, JOIN)),
    # Stopping: a start waits, another stop joins, force overtakes the grace.
    (STOPPING, START): (STOPPING, (QUEUE,)),
    (STOPPING, AGAIN): (DOWN, (SAVE, STOPPED)),
    (STOPPING, OVER): (DOWN, (SAVE, STOPPED)),
    (STOPPING, GENTLY): (STOPPING, (INTERRUPTED, JOIN)),
    (STOPPING, FORCED): (STOPPING, (KILL, INTERRUPTED, JOIN)),
}
EVERY = list(itertools.product(State, INPUTS))


@pytest.mark.parametrize(("state", "event"), TABLE, ids=str)
def test_a_transition(state: State, event: Input) -> None:
    assert step(state, event) == TABLE[state, event]


@pytest.mark.parametrize(("state", "event"), [pair for pair in EVERY if pair not in TABLE], ids=str)
def test_an_input_that_means_nothing_changes_nothing(state: State, event: Input) -> None:
    assert step(state, event) == (state, ())


@pytest.mark.parametrize(("state", "event"), EVERY, ids=str)
def test_a_change_of_state_is_always_kept_and_nothing_else_is(state: State, event: Input) -> None:
    following, effects = step(state, event)
    assert (SAVE in effects) == (following is not state)
    assert SAVE not in effects or effects[0] is SAVE


@given(st.lists(st.sampled_from(INPUTS), max_size=60))
def test_launches_and_ends_alternate_whatever_comes(inputs: list[Input]) -> None:
    """A process is launched only where none runs, and every stop is answered in the end."""
    state, runs, waiting = DOWN, False, 0
    for event in inputs:
        if isinstance(event, Exited):
            if not runs:
                continue  # what does not run cannot end
            runs = False
        elif event == READY and not runs:
            continue
        state, effects = step(state, event)
        if LAUNCH in effects:
            assert not runs
            runs = True
        if JOIN in effects:
            waiting += 1
        if STOPPED in effects:
            waiting = 0
        assert runs == (state in (STARTING, UP, RESTARTING, STOPPING))
        assert not waiting or state is STOPPING
