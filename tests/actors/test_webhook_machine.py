"""Deliveries and receivers, pure: every outcome from every state that a try can begin in."""

from __future__ import annotations

import random

import pytest

from actors.webhook.machine import WELL, Next, Outcome, Receiver, Rule, State, observe, step

RULE = Rule(attempts=5, first=15.0, cap=300.0)


class Even(random.Random):
    """No jitter."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) * 0


RNG = Even()
LOST = Outcome(None, "no connection")


def answered(status: int, retry_after: float | None = None) -> Outcome:
    return Outcome(status, retry_after=retry_after)


# -- one delivery -------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize("tried", range(6))
def test_any_2xx_delivers_at_any_try(status: int, tried: int) -> None:
    assert step(tried, answered(status), RULE, RNG) == Next(State.DELIVERED, tried + 1)


FAILURES = [LOST, *map(answered, (100, 199, 300, 301, 304, 307, 400, 401, 403, 404, 408, 425, 429))]
FAILURES += [answered(status) for status in (500, 501, 502, 503, 504, 599)]


@pytest.mark.parametrize("outcome", FAILURES, ids=lambda o: str(o.status))
def test_all_else_is_tried_again_after_waits_that_double_and_then_is_dead(outcome: Outcome) -> None:
    waits = []
    tried = 0
    while True:
        after = step(tried, outcome, RULE, RNG)
        assert after.attempts == tried + 1
        assert not after.disable
        tried = after.attempts
        if after.state is State.DEAD:
            break
        assert after.state is State.PENDING
        waits.append(after.wait)
    assert waits == [15, 30, 60, 120]
    assert tried == 5


def test_waits_double_up_to_the_cap() -> None:
    rule = Rule(attempts=9, first=15.0, cap=300.0)
    waits = [step(tried, answered(500), rule, RNG).wait for tried in range(8)]
    assert waits == [15, 30, 60, 120, 240, 300, 300, 300]


def test_waits_are_spread_a_little_and_never_past_the_cap() -> None:
    rng = random.Random(1)
    for tried, wait in ((0, 15), (3, 120)):
        found = {step(tried, answered(500), RULE, rng).wait for _ in range(50)}
        assert len(found) > 40
        assert all(0.9 * wait <= w <= 1.1 * wait for w in found)
    rule = Rule(attempts=20, first=15.0, cap=300.0)
    assert all(step(15, answered(500), rule, rng).wait <= 300 for _ in range(50))


def test_a_single_try_is_a_rule_too() -> None:
    rule = Rule(attempts=1, first=15.0, cap=300.0)
    assert step(0, answered(500), rule, RNG) == Next(State.DEAD, 1)


@pytest.mark.parametrize("tried", range(6))
def test_410_disables_the_endpoint_and_keeps_the_delivery_also_at_the_last_try(tried: int) -> None:
    after = step(tried, answered(410), RULE, RNG)
    assert after == Next(State.PENDING, tried + 1, disable=True)


@pytest.mark.parametrize(
    ("asked", "wait"), [(None, 15), (0, 15), (10, 15), (100, 100), (300, 300), (86400, 300)]
)
def test_retry_after_lengthens_a_wait_up_to_the_cap(asked: float | None, wait: float) -> None:
    for status in (503, 429, 301, 500):
        assert step(0, answered(status, asked), RULE, RNG).wait == wait


def test_retry_after_does_not_put_off_the_end() -> None:
    assert step(4, answered(503, 100), RULE, RNG).state is State.DEAD


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (LOST, "no connection"),
        (Outcome(500, answer="secret"), "answered 500"),
        (answered(204), ""),
        (answered(410), "answered 410"),
    ],
)
def test_a_reason_has_nothing_of_the_answer(outcome: Outcome, reason: str) -> None:
    assert outcome.reason == reason


# -- the receiver as a whole -------------------------------------------------------------------


def after(*outcomes: tuple[str, Outcome], now: float = 100.0) -> Receiver:
    known = WELL
    for subject, outcome in outcomes:
        known = observe(known, subject, outcome, RULE, now, RNG)
    return known


AWAY = [LOST, answered(502), answered(503), answered(504)]


@pytest.mark.parametrize("outcome", AWAY, ids=lambda o: str(o.status))
def test_one_subject_alone_says_nothing_of_the_receiver(outcome: Outcome) -> None:
    known = after(("a", outcome), ("a", outcome), ("a", outcome))
    assert not known.away


@pytest.mark.parametrize("outcome", AWAY, ids=lambda o: str(o.status))
def test_two_in_a_row_say_that_it_is_away(outcome: Outcome) -> None:
    known = after(("a", outcome), ("b", outcome))
    assert known.away
    assert known.held_until == 115


def test_each_more_that_fails_doubles_the_wait_up_to_the_cap() -> None:
    waits = []
    known = after(("a", LOST))
    for subject in "bcdefghi":
        known = observe(known, subject, LOST, RULE, 0.0, RNG)
        waits.append(known.held_until)
    assert waits == [15, 30, 60, 120, 240, 300, 300, 300]


def test_a_wait_is_never_shortened() -> None:
    known = after(("a", LOST), ("b", answered(503, 200)))
    assert known.held_until == 300
    assert observe(known, "c", LOST, RULE, 110.0, RNG).held_until == 300


def test_429_is_about_the_receiver_at_once() -> None:
    known = after(("a", answered(429)))
    assert known.away
    assert known.held_until == 115
    assert after(("a", answered(429, 40))).held_until == 140
    assert after(("a", answered(429, 4000))).held_until == 400


@pytest.mark.parametrize("status", [200, 204, 301, 400, 404, 410, 500, 501])
def test_any_other_answer_says_that_it_is_there(status: int) -> None:
    assert after(("a", LOST), ("b", LOST), ("c", answered(status))) == WELL
    assert after(("a", LOST), ("b", answered(status)), ("c", LOST)).away is False
