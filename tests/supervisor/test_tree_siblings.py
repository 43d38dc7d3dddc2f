"""The tree: who restarts with whom."""

from __future__ import annotations

import trio
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from supervisor.child import State
from supervisor.spec import Restart, Strategy
from tests.supervisor.kit import (
    BY_HAND,
    NEVER,
    ONCE,
    Tree,
    parts,
    reach,
)


async def test_one_for_one_nobody_else_restarts(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, c), journal = parts()
    tree = await Tree([a.spec(), b.spec(), c.spec()]).start(nursery)
    journal.clear()
    b.crash()
    await reach(tree.child("b"), State.BACKOFF)
    await reach(tree.child("b"), State.RUNNING)
    assert journal == ["b crashes", "b starts", "b ready"]
    assert (a.starts, b.starts, c.starts) == (1, 2, 1)


async def test_rest_for_one_the_later_ones_stop_in_reverse_and_start_in_order(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, c, d), journal = parts(4)
    tree = await Tree([a.spec(), b.spec(), c.spec(), d.spec()], Strategy.REST_FOR_ONE).start(
        nursery
    )
    c.ready_after = 2.0
    journal.clear()
    b.crash()
    await reach(tree.child("b"), State.BACKOFF)
    await reach(tree.child("d"), State.WAITING)
    assert str(tree.child("d").last_reason) == "sibling: /b restarts"
    await reach(tree.child("d"), State.RUNNING)
    assert journal == [
        *("b crashes", "d ends", "c ends"),
        *("b starts", "b ready", "c starts", "c ready", "d starts", "d ready"),
    ]
    assert a.starts == 1


async def test_rest_for_one_the_later_ones_stay_down_while_the_first_is_down(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, c), _ = parts()
    tree = await Tree([a.spec(intensity=ONCE), b.spec(), c.spec()], Strategy.REST_FOR_ONE).start(
        nursery
    )
    a.crashes_at_start = 99
    a.crash()
    await reach(tree.child("a"), State.BACKOFF)
    await trio.sleep(0.5)
    assert [tree.child(x).state for x in "bc"] == [State.WAITING, State.WAITING]
    await reach(tree.child("a"), State.QUARANTINED)
    await trio.sleep(1000)
    assert [tree.child(x).state for x in "bc"] == [State.WAITING, State.WAITING]
    a.crashes_at_start = 0
    await tree.child("a").restart(BY_HAND)
    await reach(tree.child("c"), State.RUNNING)
    assert (b.starts, c.starts) == (2, 2)


async def test_rest_for_one_a_first_that_crashes_again_while_they_come_back(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, c), journal = parts()
    tree = await Tree([a.spec(), b.spec(), c.spec()], Strategy.REST_FOR_ONE).start(nursery)
    b.ready_after = 2.0
    a.crash()
    await reach(tree.child("b"), State.WAITING)
    await reach(tree.child("b"), State.STARTING)
    a.crash()
    await reach(tree.child("a"), State.BACKOFF)
    await reach(tree.child("b"), State.WAITING)
    journal.clear()
    await reach(tree.child("c"), State.RUNNING)
    assert journal == ["a starts", "a ready", "b starts", "b ready", "c starts", "c ready"]


async def test_rest_for_one_siblings_in_backoff_or_quarantine_come_back_with_the_first(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, c), _ = parts()
    tree = await Tree([a.spec(), b.spec(), c.spec(intensity=NEVER)], Strategy.REST_FOR_ONE).start(
        nursery
    )
    c.crash()
    await reach(tree.child("c"), State.QUARANTINED)
    b.crash()
    await reach(tree.child("b"), State.BACKOFF)
    a.crash()
    await reach(tree.child("a"), State.BACKOFF)
    await wait_all_tasks_blocked()
    assert [tree.child(x).state for x in "bc"] == [State.WAITING, State.WAITING]
    await reach(tree.child("c"), State.RUNNING)
    assert tree.child("b").state is State.RUNNING


async def test_rest_for_one_a_temporary_sibling_is_not_started_again(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, c), _ = parts()
    tree = await Tree(
        [a.spec(), b.spec(Restart.TEMPORARY), c.spec(Restart.TRANSIENT)], Strategy.REST_FOR_ONE
    ).start(nursery)
    a.crash()
    await reach(tree.child("c"), State.WAITING)
    await reach(tree.child("c"), State.RUNNING)
    assert tree.child("b").state is State.ENDED
    assert (b.starts, c.starts) == (1, 2)


async def test_rest_for_one_a_sibling_that_stops_slowly_is_waited_for(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, _), journal = parts()
    b.ignores_stop = True
    tree = await Tree([a.spec(), b.spec(grace=6.0)], Strategy.REST_FOR_ONE).start(nursery)
    journal.clear()
    a.crash()
    await wait_all_tasks_blocked()
    assert tree.child("a").state is State.BACKOFF
    assert tree.child("b").state is State.STOPPING
    await reach(tree.child("b"), State.WAITING)
    await reach(tree.child("b"), State.RUNNING)
    assert journal[:4] == ["a crashes", "b cancelled", "a starts", "a ready"]


async def test_rest_for_one_a_stop_while_the_later_ones_wait_ends_all(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, c), _ = parts()
    tree = await Tree([a.spec(), b.spec(), c.spec()], Strategy.REST_FOR_ONE).start(nursery)
    a.crash()
    await reach(tree.child("b"), State.WAITING)
    await tree.stop()
    assert [tree.child(x).state for x in "abc"] == [State.ENDED] * 3
    assert tree.error is None


async def test_rest_for_one_a_sibling_restarted_by_hand_meanwhile_is_not_lost(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    """b restarts by hand and waits for c to stop, when a crashes."""
    (a, b, c), _ = parts()
    c.ignores_stop = True
    tree = await Tree([a.spec(), b.spec(), c.spec(grace=3.0)], Strategy.REST_FOR_ONE).start(nursery)
    nursery.start_soon(tree.child("b").restart, BY_HAND)
    await wait_all_tasks_blocked()
    a.crash()
    await reach(tree.child("a"), State.BACKOFF)
    await reach(tree.child("a"), State.RUNNING)
    await reach(tree.child("c"), State.RUNNING)
    assert tree.child("b").state is State.RUNNING
