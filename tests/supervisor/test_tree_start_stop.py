"""The tree: who starts when, who stops first, and for how long it is waited."""

from __future__ import annotations

import pytest
import trio
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from supervisor.child import State
from supervisor.intensity import Intensity
from supervisor.service import Context
from supervisor.spec import Cause, ChildSpec, StopReason
from supervisor.tree import Supervisor
from tests.supervisor.kit import (
    EVEN,
    NEVER,
    ONCE,
    SHUTDOWN,
    Does,
    Tree,
    parts,
    reach,
)

# -- start ------------------------------------------------------------------------


async def test_children_start_in_order_each_when_the_one_before_is_ready(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, c), journal = parts()
    a.ready_after, b.ready_after = 3.0, 2.0
    began = trio.current_time()
    await Tree([a.spec(), b.spec(), c.spec()]).start(nursery)
    assert journal == ["a starts", "a ready", "b starts", "b ready", "c starts", "c ready"]
    assert trio.current_time() - began == pytest.approx(5.0)


async def test_a_child_that_is_not_ready_in_time_is_cancelled_and_tried_again(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, _), _ = parts()
    a.ready_after = 10.0
    tree = Tree([a.spec(ready_timeout=2.0), b.spec()])
    nursery.start_soon(tree.run)
    await wait_all_tasks_blocked()
    await reach(tree.child("a"), State.BACKOFF)
    assert tree.child("a").last_reason == StopReason(Cause.NOT_READY, "not ready within 2 s")
    assert b.starts == 0
    a.ready_after = 1.0
    await reach(tree.child("a"), State.RUNNING)
    await reach(tree.root.child, State.RUNNING)
    assert (a.starts, b.starts) == (2, 1)


async def test_once_ready_there_is_no_deadline_any_more(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    tree = await Tree([a.spec(ready_timeout=2.0)]).start(nursery)
    await trio.sleep(1000)
    assert (tree.child("a").state, a.starts) == (State.RUNNING, 1)


async def test_a_quarantined_child_does_not_keep_later_ones_from_starting(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, _), _ = parts()
    a.crashes_at_start = 99
    tree = await Tree([a.spec(intensity=ONCE), b.spec()]).start(nursery)
    assert tree.child("a").state is State.QUARANTINED
    assert tree.child("b").state is State.RUNNING


async def test_a_child_that_cannot_even_be_made_has_crashed(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    def make() -> Does:
        raise KeyError("no such thing")

    tree = await Tree([ChildSpec("a", make, backoff=EVEN, intensity=ONCE)]).start(nursery)
    assert tree.child("a").last_error == "KeyError: 'no such thing'"
    assert tree.kinds == ["crashed", "restarted", "crashed", "quarantined"]


# -- stop -------------------------------------------------------------------------


async def test_children_stop_in_reverse_order_each_after_the_one_after_it(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, c), journal = parts()
    tree = await Tree([a.spec(), b.spec(), c.spec()]).start(nursery)
    journal.clear()
    await tree.stop()
    assert journal == ["c ends", "b ends", "a ends"]
    assert tree.error is None


async def test_a_child_that_ignores_stop_is_cancelled_after_its_grace(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, c), journal = parts()
    b.ignores_stop = True
    tree = await Tree([a.spec(), b.spec(grace=7.0), c.spec()]).start(nursery)
    journal.clear()
    began = trio.current_time()
    await tree.stop()
    assert trio.current_time() - began == pytest.approx(7.0)
    assert journal == ["c ends", "b cancelled", "a ends"]
    assert tree.child("b").last_reason == SHUTDOWN


async def test_a_crash_while_stopping_does_not_bring_it_back(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    async def fails_to_stop(context: Context) -> None:
        context.ready()
        await context.stopped()
        raise ValueError("cannot stop")

    tree = await Tree([ChildSpec("a", lambda: Does(fails_to_stop))]).start(nursery)
    await tree.stop()
    child = tree.child("a")
    assert (child.state, child.restarts, child.last_reason) == (State.ENDED, 0, SHUTDOWN)
    assert child.last_error == "ValueError: cannot stop"


@pytest.mark.parametrize("intensity", [Intensity(), NEVER])
async def test_a_child_that_crashes_while_later_ones_stop_is_not_restarted(
    nursery: trio.Nursery, autojump_clock: Clock, intensity: Intensity
) -> None:
    (a, b, _), _ = parts()
    b.ignores_stop = True
    tree = await Tree([a.spec(intensity=intensity, significant=True), b.spec()]).start(nursery)
    tree.root.stop(SHUTDOWN)
    await wait_all_tasks_blocked()
    a.crash()
    await reach(tree.root.child, State.ENDED)
    assert (a.starts, tree.error) == (1, None)
    assert "quarantined" not in tree.kinds


async def test_a_stop_during_the_start_stops_what_has_started_and_starts_no_more(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, c), journal = parts()
    b.ready_after = 3.0
    tree = Tree([a.spec(), b.spec(), c.spec()])
    nursery.start_soon(tree.run)
    await wait_all_tasks_blocked()
    await trio.sleep(1)
    await tree.stop()
    assert journal == ["a starts", "a ready", "b starts", "b ready", "b ends", "a ends"]


async def test_a_stop_before_the_start_starts_nothing(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), journal = parts()
    tree = Tree([a.spec()])
    tree.root.stop(SHUTDOWN)
    with trio.fail_after(1):
        await tree.run()
    assert journal == []


async def test_a_stop_during_backoff_does_not_wait_for_it(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    tree = await Tree([a.spec()]).start(nursery)
    a.crash()
    await reach(tree.child("a"), State.BACKOFF)
    began = trio.current_time()
    await tree.stop()
    assert trio.current_time() == began
    assert (a.starts, tree.child("a").state) == (1, State.ENDED)


async def test_a_stop_ends_a_quarantine(nursery: trio.Nursery, autojump_clock: Clock) -> None:
    (a, *_), _ = parts()
    tree = await Tree([a.spec(intensity=NEVER)]).start(nursery)
    a.crash()
    await reach(tree.child("a"), State.QUARANTINED)
    await tree.stop()
    assert tree.child("a").state is State.ENDED


async def test_two_stops_at_once_are_one_and_the_first_reason_holds(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, _), journal = parts(3)
    tree = await Tree([a.spec(), b.spec()]).start(nursery)
    journal.clear()
    tree.root.stop(StopReason(Cause.SHUTDOWN, "first"))
    tree.root.stop(StopReason(Cause.SHUTDOWN, "second"))
    await reach(tree.root.child, State.ENDED)
    assert journal == ["b ends", "a ends"]
    assert str(tree.child("a").last_reason) == "shutdown: first"


async def test_a_second_stop_does_not_lengthen_the_grace(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    a.ignores_stop = True
    tree = await Tree([a.spec(grace=4.0)]).start(nursery)
    child = tree.child("a")
    began = trio.current_time()
    async with trio.open_nursery() as stops:
        for _ in range(3):
            stops.start_soon(child.stop, SHUTDOWN)
            await trio.sleep(1)
    assert trio.current_time() - began == pytest.approx(4.0)


async def test_the_reason_of_the_stop_is_seen_by_everybody_down_the_tree(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    seen: dict[str, str] = {}

    async def watch(context: Context) -> None:
        context.ready()
        await context.stopped()
        seen[context.path] = str(context.stop_reason)

    leaf = ChildSpec("leaf", lambda: Does(watch))
    tree = await Tree(
        [ChildSpec("branch", lambda: Supervisor([leaf])), ChildSpec("twig", lambda: Does(watch))]
    ).start(nursery)
    await tree.stop(StopReason(Cause.SHUTDOWN, "SIGTERM"))
    assert seen == {"/twig": "shutdown: SIGTERM", "/branch/leaf": "shutdown: SIGTERM"}
    assert str(tree.child("branch").last_reason) == "shutdown: SIGTERM"
