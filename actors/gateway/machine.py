"""The life of a gateway, pure: (state, input) -> (state, effects)."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.Enum):
    """Where a gateway is in its life."""

    DOWN = "down"
    STARTING = "starting"  # for the first time: somebody waits for the answer
    UP = "up"
    BACKOFF = "backoff"  # it died; it will be started again
    RESTARTING = "restarting"  # started again after it, or the appliance, died
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Start:
    """Somebody wants it up."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What was launched is ready."""


@dataclass(frozen=True, slots=True)
class Exited:
    """What was launched is gone, or never came up; `again` if the policy allows another try."""

    again: bool


@dataclass(frozen=True, slots=True)
class Retry:
    """The backoff is over."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Somebody wants it down; `force` at once."""

    force: bool


Input = Start | Ready | Exited | Retry | Stop


class Effect(enum.Enum):
    """What the actor is to do, in this order."""

    SAVE = "save"
    LAUNCH = "launch"
    TERMINATE = "terminate"
    KILL = "kill"
    SCHEDULE_RETRY = "schedule_retry"
    QUEUE_START = "queue_start"
    ANSWER_STARTED = "answer_started"
    ANSWER_FAILED = "answer_failed"
    ANSWER_INTERRUPTED = "answer_interrupted"
    ANSWER_STOPPED = "answer_stopped"
    REFUSE_RUNNING = "refuse_running"
    JOIN_STOP = "join_stop"


Step = tuple[State, tuple[Effect, ...]]


def step(state: State, event: Input) -> Step:
    """The next state and what to do. An input that means nothing in a state changes nothing."""
    match event:
        case Start():
            return _start(state)
        case Stop(force):
            return _stop(state, force)
        case Ready():
            return _ready(state)
        case Exited(again):
            return _exited(state, again)
        case Retry():
            if state is State.BACKOFF:
                return State.RESTARTING, (Effect.SAVE, Effect.LAUNCH)
            return state, ()


def _start(state: State) -> Step:
    if state is State.DOWN:
        return State.STARTING, (Effect.SAVE, Effect.LAUNCH)
    if state is State.STOPPING:
        return state, (Effect.QUEUE_START,)
    return state, (Effect.REFUSE_RUNNING,)


def _stop(state: State, force: bool) -> Step:
    end = Effect.KILL if force else Effect.TERMINATE
    match state:
        case State.DOWN:
            return state, (Effect.ANSWER_STOPPED,)
        case State.BACKOFF:
            return State.DOWN, (Effect.SAVE, Effect.ANSWER_STOPPED)
        case State.STARTING:
            return State.STOPPING, (Effect.SAVE, Effect.ANSWER_INTERRUPTED, end, Effect.JOIN_STOP)
        case State.UP | State.RESTARTING:
            # While it restarts, whoever repeated the start with its key may be waiting.
            return State.STOPPING, (Effect.SAVE, Effect.ANSWER_INTERRUPTED, end, Effect.JOIN_STOP)
        case State.STOPPING:
            # A start that waits for this stop is overtaken by the newer stop.
            effects = (Effect.ANSWER_INTERRUPTED, Effect.JOIN_STOP)
            return state, (Effect.KILL, *effects) if force else effects


def _ready(state: State) -> Step:
    if state in (State.STARTING, State.RESTARTING):
        return State.UP, (Effect.SAVE, Effect.ANSWER_STARTED)
    return state, ()


def _exited(state: State, again: bool) -> Step:
    match state:
        case State.STARTING:
            # The one who asked learns why; trying on behind its back would make a ghost.
            return State.DOWN, (Effect.SAVE, Effect.ANSWER_FAILED)
        case State.UP | State.RESTARTING if again:
            return State.BACKOFF, (Effect.SAVE, Effect.SCHEDULE_RETRY)
        case State.UP | State.RESTARTING:
            return State.DOWN, (Effect.SAVE, Effect.ANSWER_FAILED)
        case State.STOPPING:
            return State.DOWN, (Effect.SAVE, Effect.ANSWER_STOPPED)
        case _:
            return state, ()
