"""The outbox, pure: who may go when, and that nobody is forgotten or overtakes their own."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.webhook.outbox import Item, Outbox


def filled(*items: tuple[int, str]) -> Outbox:
    box = Outbox()
    for seq, subject in items:
        box.add(Item(seq, subject))
    return box


def taken(box: Outbox, now: float = 0.0, fresh: bool = True) -> list[int]:
    """All that may go now."""
    found = []
    while (item := box.take(now, fresh=fresh)) is not None:
        found.append(item.seq)
    return found


def test_the_oldest_of_each_subject_goes_and_the_oldest_first() -> None:
    box = filled((1, "a"), (2, "a"), (3, "b"), (4, "a"), (5, "c"))
    assert taken(box) == [1, 3, 5]
    assert (len(box), box.flying, box.first_tries) == (5, 3, 3)


def test_the_next_goes_when_the_one_before_is_settled() -> None:
    box = filled((1, "a"), (2, "a"))
    item = box.take(0.0, fresh=True)
    assert item is not None
    assert box.take(0.0, fresh=True) is None
    box.settled(item)
    assert taken(box) == [2]
    assert len(box) == 1


def test_one_that_waits_holds_its_subject_only() -> None:
    box = filled((1, "a"), (2, "a"), (3, "b"))
    item = box.take(0.0, fresh=True)
    assert item is not None
    item.attempts = 1
    box.again(item, 10.0)
    assert box.next_due() == 10.0
    assert taken(box, now=9.9) == [3]
    assert taken(box, now=10.0) == [1]
    assert box.next_due() == math.inf
    assert box.first_tries == 1


def test_what_was_never_tried_can_be_held() -> None:
    box = filled((1, "a"), (2, "b"))
    item = box.take(0.0, fresh=True)
    assert item is not None
    item.attempts = 1
    box.again(item, 5.0)
    assert box.has_fresh
    assert taken(box, now=5.0, fresh=False) == [1]
    assert taken(box, now=5.0, fresh=True) == [2]
    assert not box.has_fresh


def test_a_redriven_one_goes_to_its_old_place() -> None:
    box = filled((5, "a"), (7, "a"))
    box.add(Item(3, "a"))
    assert taken(box) == [3]


def test_a_redriven_one_goes_next_when_a_later_one_is_under_way_or_waits() -> None:
    box = filled((5, "a"))
    item = box.take(0.0, fresh=True)
    assert item is not None
    box.add(Item(3, "a"))
    assert taken(box) == []
    item.attempts = 1
    box.again(item, 50.0)
    assert taken(box) == [3]


Step = tuple[str, int, int]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "go", "done", "again", "time"]),
            st.integers(0, 3),
            st.integers(1, 5),
        ),
        max_size=60,
    )
)
def test_whatever_happens_each_goes_in_order_and_all_are_done_at_last(steps: list[Step]) -> None:
    box, now, seq = Outbox(), 0.0, 0
    flying: list[Item] = []
    done: dict[str, list[int]] = {}
    added: dict[str, list[int]] = {}

    def go() -> None:
        item = box.take(now, fresh=True)
        if item is not None:
            assert item.due <= now
            assert item.subject not in {other.subject for other in flying}
            flying.append(item)

    def settle(item: Item) -> None:
        flying.remove(item)
        box.settled(item)
        done.setdefault(item.subject, []).append(item.seq)

    for kind, number, amount in steps:
        match kind:
            case "add":
                seq += 1
                added.setdefault(f"s{number}", []).append(seq)
                box.add(Item(seq, f"s{number}"))
            case "go":
                go()
            case "done" if flying:
                settle(flying[number % len(flying)])
            case "again" if flying:
                item = flying.pop(number % len(flying))
                item.attempts += 1
                box.again(item, now + amount)
            case "time":
                now += amount
    assert len(box) == sum(map(len, added.values())) - sum(map(len, done.values()))
    now += 100
    while len(box):
        go()
        settle(flying[0])
    assert done == added
    assert taken(box, now=math.inf) == []
