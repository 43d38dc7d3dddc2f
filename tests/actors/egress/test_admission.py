"""What fits on the machine: reserves, their correction, and limits. Pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.egress.admission import FADE, SETTLED, Amount, Ledger, Reserve

LIMITS = {"tasks": 100, "record": 100, "snapshot": 100, "page": 100}
TWO_CORES = Amount(2.0, 4000, 0)
RECORD = Amount(0.5, 400, 300)


def ledger(capacity: Amount = TWO_CORES, **limits: int) -> Ledger:
    return Ledger(capacity, {**LIMITS, **limits})


def test_what_fits_is_let_in_and_what_does_not_waits_for_room() -> None:
    found = ledger()
    for n in range(4):
        assert found.refuse("record", RECORD) == ""
        found.add(str(n), "record", RECORD)
    assert found.refuse("record", RECORD) == "cpu"
    found.remove("2")
    assert found.refuse("record", RECORD) == ""


@pytest.mark.parametrize(
    ("cost", "lacking"),
    [
        (Amount(1.6, 0, 0), "cpu"),
        (Amount(0, 3601, 0), "memory_mb"),
        (Amount(0, 0, 701), "disk_kb"),
        (Amount(1.5, 3600, 700), ""),
    ],
)
def test_what_is_lacking_is_named(cost: Amount, lacking: str) -> None:
    found = ledger(Amount(2.0, 4000, 1000))
    found.add("a", "record", RECORD)
    assert found.refuse("record", cost) == lacking


def test_a_capacity_of_nought_is_without_limit() -> None:
    found = ledger(Amount(0, 0, 0))
    found.add("a", "record", RECORD)
    assert found.refuse("record", Amount(1e6, 1e6, 1e6)) == ""


def test_where_nothing_runs_anything_may_try() -> None:
    found = ledger()
    assert found.refuse("page", Amount(64, 1e6, 1e6)) == ""
    found.add("a", "page", Amount(64, 1e6, 1e6))
    assert found.refuse("record", Amount(0.01, 1, 1)) == "cpu"


def test_limits_are_of_each_kind_and_of_all() -> None:
    found = ledger(Amount(), record=2, page=0, tasks=3)
    assert found.refuse("page", Amount()) == "page"
    for n in range(2):
        found.add(str(n), "record", Amount())
    assert found.refuse("record", Amount()) == "record"
    assert found.refuse("snapshot", Amount()) == ""
    found.add("s", "snapshot", Amount())
    assert found.refuse("snapshot", Amount()) == "tasks"
    found.remove("0")
    assert found.refuse("record", Amount()) == ""


def test_what_there_is_no_limit_for_is_not_let_in() -> None:
    assert ledger().refuse("nothing of the kind", Amount()) == "nothing of the kind"


def test_what_is_gone_may_be_removed_again() -> None:
    found = ledger()
    found.add("a", "record", RECORD)
    found.remove("a")
    found.remove("a")
    assert found.reserved == Amount()
    assert found.kinds == {}


# -- reserves ---------------------------------------------------------------------------


def test_a_task_keeps_what_was_expected_until_it_is_measured() -> None:
    reserve = Reserve(RECORD)
    for _ in range(SETTLED - 1):
        reserve.correct(Amount(0.1, 100, 50))
        assert reserve.amount == RECORD
    reserve.correct(Amount(0.1, 100, 50))
    assert reserve.amount == Amount(0.1, 100, 50)


def test_a_peak_counts_at_once_and_fades() -> None:
    reserve = Reserve(RECORD)
    for _ in range(SETTLED):
        reserve.correct(Amount(0.1, 100, 50))
    reserve.correct(Amount(1.0, 100, 50))
    assert reserve.amount.cpu == 1.0
    seen = []
    for _ in range(40):
        reserve.correct(Amount(0.1, 100, 50))
        seen.append(reserve.amount.cpu)
    assert seen[0] == pytest.approx(FADE)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == 0.1


def test_a_task_that_takes_more_than_expected_makes_others_wait() -> None:
    found = ledger()
    found.add("a", "record", RECORD)
    assert found.refuse("record", RECORD) == ""
    for _ in range(SETTLED):
        found.reserves["a"].correct(Amount(1.8, 400, 300))
    assert found.refuse("record", RECORD) == "cpu"


amounts = st.builds(Amount, st.floats(0, 2), st.floats(0, 4000), st.floats(0, 1000))
steps = st.lists(st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 9), amounts))


@given(steps, st.builds(Amount, st.floats(0.5, 8), st.floats(500, 9000), st.floats(100, 3000)))
def test_never_is_more_promised_than_there_is(
    steps: list[tuple[str, int, Amount]], capacity: Amount
) -> None:
    """But for one alone, that may try."""
    found = ledger(capacity, record=6)
    for what, number, cost in steps:
        task = str(number)
        if what == "remove":
            found.remove(task)
        elif task not in found.reserves and not found.refuse("record", cost):
            found.add(task, "record", cost)
        assert len(found.reserves) <= 6
        assert len(found.reserves) < 2 or found.reserved.fits(capacity) == "" or alone_first(found)


def alone_first(found: Ledger) -> bool:
    """The first was let in beyond the capacity; then whatever else is there takes nothing more."""
    amounts = [reserve.expected for reserve in found.reserves.values()]
    over = found.reserved.fits(found.capacity)
    return bool(over) and sum(getattr(a, over) for a in amounts[1:]) <= 1e-6
