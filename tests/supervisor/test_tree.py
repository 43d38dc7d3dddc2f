"""The tree: who starts when, who restarts with whom, who stops first."""

from __future__ import annotations

import pytest
import trio
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from supervisor.child import State
from supervisor.errors import ActorDown, StartFailed, StoreCorrupt
from supervisor.inspect import quarantined_paths
from supervisor.intensity import Intensity
from supervisor.ref import Ref
from supervisor.reply import Reply
from supervisor.service import Context
from supervisor.spec import Cause, ChildSpec, Restart, StopReason, Strategy
from supervisor.tree import Place, Supervisor
from tests.supervisor.kit import (
    EVEN,
    SHUTDOWN,
    Crash,
    Does,
    Echo,
    Note,
    Part,
    Protocol,
    Scribe,
    Tree,
    Words,
    reach,
)

BY_HAND = StopReason(Cause.BY_HAND, "operator")
ONCE = Intensity(limit=1, seconds=60)
NEVER = Intensity(limit=0, seconds=60)


def parts(count: int = 3) -> tuple[list[Part], list[str]]:
    journal: list[str] = []
    return [Part(name, journal) for name in "abcdef"[:count]], journal


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


# -- restart: when ----------------------------------------------------------------


ENDS = [
    # permanent: always; transient: only after an abnormal end; temporary: never
    (Restart.PERMANENT, "normal", True),
    (Restart.PERMANENT, "crash", True),
    (Restart.PERMANENT, "not ready", True),
    (Restart.TRANSIENT, "normal", False),
    (Restart.TRANSIENT, "crash", True),
    (Restart.TRANSIENT, "not ready", True),
    (Restart.TEMPORARY, "normal", False),
    (Restart.TEMPORARY, "crash", False),
    (Restart.TEMPORARY, "not ready", False),
]


@pytest.mark.parametrize(("rule", "end", "again"), ENDS)
async def test_who_is_restarted_after_which_end(
    nursery: trio.Nursery, autojump_clock: Clock, rule: Restart, end: str, again: bool
) -> None:
    (a, *_), _ = parts()
    if end == "not ready":
        a.ready_after = 100.0
    tree = Tree([a.spec(rule, ready_timeout=5.0)])
    nursery.start_soon(tree.run)
    await wait_all_tasks_blocked()
    child = tree.child("a")
    match end:
        case "normal":
            a.end()
        case "crash":
            a.crash()
    await reach(child, State.BACKOFF if again else State.ENDED)
    a.ready_after = 0.0
    if again:
        await reach(child, State.RUNNING)
    assert a.starts == 1 + again
    assert child.last_reason is not None
    assert child.last_reason.cause.value == end.replace(" ", "_")


async def test_a_permanent_child_that_ends_as_soon_as_it_starts_is_paced_and_quarantined(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    starts = 0

    async def nothing(context: Context) -> None:
        nonlocal starts
        starts += 1
        context.ready()

    spec = ChildSpec("a", lambda: Does(nothing), backoff=EVEN, intensity=Intensity(3, 60))
    tree = Tree([spec])
    nursery.start_soon(tree.run)
    began = trio.current_time()
    await wait_all_tasks_blocked()
    await reach(tree.child("a"), State.QUARANTINED)
    assert starts == 4
    assert trio.current_time() - began == pytest.approx(1 + 2 + 4)


async def test_backoff_grows_between_restarts_and_starts_over_after_healthy_time(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    a.crashes_at_start = 4
    began = trio.current_time()
    tree = await Tree([a.spec(intensity=Intensity(99, 600))]).start(nursery)
    assert trio.current_time() - began == pytest.approx(1 + 2 + 4 + 8)
    await trio.sleep(EVEN.healthy_after)
    crashed = trio.current_time()
    a.crash()
    await reach(tree.child("a"), State.BACKOFF)
    await reach(tree.child("a"), State.RUNNING)
    assert trio.current_time() - crashed == pytest.approx(1.0)
    assert tree.child("a").restarts == 5


# -- restart: with whom -----------------------------------------------------------


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


# -- past the intensity -----------------------------------------------------------


async def test_past_the_intensity_a_child_is_quarantined_and_its_siblings_untouched(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, _), journal = parts()
    tree = await Tree([a.spec(intensity=Intensity(2, 60)), b.spec()]).start(nursery)
    for _ in range(2):
        a.crash()
        await reach(tree.child("a"), State.BACKOFF)
        await reach(tree.child("a"), State.RUNNING)
    a.crash()
    await reach(tree.child("a"), State.QUARANTINED)
    journal.clear()
    await trio.sleep(10_000)
    assert journal == []
    assert tree.child("b").state is State.RUNNING
    assert quarantined_paths(tree.root.child) == ["/a"]


async def test_what_happens_is_told_with_path_reason_and_count(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    tree = await Tree([a.spec(intensity=ONCE)]).start(nursery)
    a.crash()
    await reach(tree.child("a"), State.BACKOFF)
    await reach(tree.child("a"), State.RUNNING)
    a.crash()
    await reach(tree.child("a"), State.QUARANTINED)
    await tree.child("a").restart(BY_HAND)
    crash = StopReason(Cause.CRASH, "ValueError: a crashed")
    assert [(h.kind, h.path, h.reason, h.restarts) for h in tree.happenings] == [
        ("crashed", "/a", crash, 0),
        ("restarted", "/a", crash, 1),
        ("crashed", "/a", crash, 1),
        ("quarantined", "/a", crash, 1),
        ("revived", "/a", BY_HAND, 1),
        ("restarted", "/a", crash, 2),
    ]


async def test_crashes_further_apart_than_the_window_never_quarantine(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    tree = await Tree([a.spec(intensity=ONCE)]).start(nursery)
    for _ in range(10):
        await trio.sleep(60)
        a.crash()
        await reach(tree.child("a"), State.BACKOFF)
        await reach(tree.child("a"), State.RUNNING)
    assert tree.child("a").restarts == 10


# -- by hand ----------------------------------------------------------------------


async def test_restart_by_hand_of_a_running_child_stops_it_in_order_and_counts_no_failure(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), journal = parts()
    tree = await Tree([a.spec(intensity=NEVER)]).start(nursery)
    journal.clear()
    began = trio.current_time()
    await tree.child("a").restart(BY_HAND)
    assert journal == ["a ends", "a starts", "a ready"]
    assert trio.current_time() == began
    assert tree.child("a").last_reason == BY_HAND
    assert [h.kind for h in tree.happenings] == ["restarted"]


@pytest.mark.parametrize("rule", list(Restart))
async def test_restart_by_hand_is_for_every_kind_of_child(
    nursery: trio.Nursery, autojump_clock: Clock, rule: Restart
) -> None:
    (a, *_), _ = parts()
    tree = await Tree([a.spec(rule)]).start(nursery)
    await tree.child("a").restart(BY_HAND)
    assert (a.starts, tree.child("a").state) == (2, State.RUNNING)


async def test_restart_by_hand_ends_a_backoff_at_once(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    tree = await Tree([a.spec()]).start(nursery)
    a.crash()
    await reach(tree.child("a"), State.BACKOFF)
    await wait_all_tasks_blocked()
    began = trio.current_time()
    await tree.child("a").restart(BY_HAND)
    assert trio.current_time() == began
    assert (a.starts, tree.child("a").state) == (2, State.RUNNING)


async def test_restart_by_hand_out_of_quarantine_forgets_the_failures(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    a.crashes_at_start = 3
    tree = await Tree([a.spec(intensity=Intensity(2, 600))]).start(nursery)
    child = tree.child("a")
    assert (child.state, child.window.left(trio.current_time())) == (State.QUARANTINED, 0)
    await child.restart(BY_HAND)
    assert (child.state, child.failures) == (State.RUNNING, 0)
    assert child.window.left(trio.current_time()) == 2


async def test_restart_by_hand_of_a_child_that_ignores_stop_takes_its_grace(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    a.ignores_stop = True
    tree = await Tree([a.spec(grace=3.0)]).start(nursery)
    began = trio.current_time()
    await tree.child("a").restart(BY_HAND)
    assert trio.current_time() - began == pytest.approx(3.0)
    assert a.starts == 2


async def test_a_stop_for_good_wins_over_a_restart_by_hand(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    a.ignores_stop = True
    tree = await Tree([a.spec(grace=3.0)]).start(nursery)
    nursery.start_soon(tree.child("a").restart, BY_HAND)
    await wait_all_tasks_blocked()
    await tree.stop()
    assert (a.starts, tree.child("a").last_reason) == (1, SHUTDOWN)


# -- what ends the tree -----------------------------------------------------------


async def test_a_significant_child_past_its_intensity_ends_the_tree_in_order(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, c), journal = parts()
    tree = await Tree([a.spec(), b.spec(intensity=NEVER, significant=True), c.spec()]).start(
        nursery
    )
    journal.clear()
    b.crash()
    await reach(tree.root.child, State.ENDED)
    assert isinstance(tree.error, StartFailed)
    assert "/b cannot be kept running: crash: ValueError: b crashed" in str(tree.error)
    assert journal == ["b crashes", "c ends", "a ends"]


async def test_a_significant_child_that_never_starts_ends_the_tree_before_later_ones_start(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, _), _ = parts()
    a.crashes_at_start = 99
    tree = Tree([a.spec(intensity=ONCE, significant=True), b.spec()])
    with trio.fail_after(60):
        await tree.run()
    assert isinstance(tree.error, StartFailed)
    assert (a.starts, b.starts) == (2, 0)


async def test_a_significant_child_of_a_branch_is_a_crash_of_the_branch_only(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, _), _ = parts()
    branch = ChildSpec(
        "branch",
        lambda: Supervisor([a.spec(intensity=NEVER, significant=True)]),
        backoff=EVEN,
    )
    tree = await Tree([branch, b.spec()]).start(nursery)
    a.crash()
    await reach(tree.child("branch"), State.BACKOFF)
    assert tree.child("branch").last_reason == StopReason(
        Cause.CRASH, "lost /branch/a: crash: ValueError: a crashed"
    )
    await reach(tree.child("branch"), State.RUNNING)
    assert (a.starts, b.starts) == (2, 1)


@pytest.mark.parametrize("when", ["at the start", "later", "in a task"])
async def test_fatal_goes_through_all_of_the_tree_as_itself(
    nursery: trio.Nursery, autojump_clock: Clock, when: str
) -> None:
    now = trio.Event()

    async def fails() -> None:
        await now.wait()
        raise StoreCorrupt("the disk is gone")

    async def body(context: Context) -> None:
        if when == "at the start":
            now.set()
            await fails()
        context.ready()
        if when == "later":
            await fails()
        async with trio.open_nursery() as inner:
            inner.start_soon(fails)

    (a, *_), _ = parts()
    branch = ChildSpec("branch", lambda: Supervisor([ChildSpec("leaf", lambda: Does(body))]))
    tree = Tree([a.spec(), branch])
    nursery.start_soon(tree.run)
    await wait_all_tasks_blocked()
    now.set()
    await reach(tree.root.child, State.ENDED)
    assert isinstance(tree.error, StoreCorrupt)
    assert tree.kinds == []


# -- dynamic children ---------------------------------------------------------------


async def test_dynamic_children_come_and_go_while_the_tree_runs(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, c), journal = parts()
    tree = await Tree([a.spec()]).start(nursery)
    child = tree.supervisor.start_child(b.spec())
    await child.settled()
    assert [x.path for x in tree.supervisor.children()] == ["/a", "/b"]
    await tree.supervisor.stop_child("b", StopReason(Cause.REMOVED))
    assert child.ended
    assert tree.supervisor.child("b") is None
    assert journal[-1] == "b ends"
    # The id is free again.
    await tree.supervisor.start_child(b.spec()).settled()
    assert b.starts == 2
    assert c.starts == 0


async def test_an_id_in_use_is_refused_and_an_unknown_one_is_no_error_to_stop(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    tree = await Tree().start(nursery)
    tree.supervisor.start_child(a.spec())
    with pytest.raises(ValueError, match="'a' exists already"):
        tree.supervisor.start_child(a.spec())
    await tree.supervisor.stop_child("nobody", StopReason(Cause.REMOVED))


async def test_a_supervisor_that_does_not_run_starts_nobody(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    tree = Tree()
    with pytest.raises(StartFailed):
        tree.supervisor.start_child(a.spec())
    await tree.start(nursery)
    await tree.stop()
    with pytest.raises(StartFailed):
        tree.supervisor.start_child(a.spec())


async def test_dynamic_children_are_independent_also_under_rest_for_one(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, _), _ = parts()
    tree = await Tree([], Strategy.REST_FOR_ONE).start(nursery)
    first = tree.supervisor.start_child(a.spec())
    await tree.supervisor.start_child(b.spec()).settled()
    a.crash()
    await reach(first, State.BACKOFF)
    await reach(first, State.RUNNING)
    assert (a.starts, b.starts) == (2, 1)


async def test_dynamic_children_stop_all_at_once_and_before_the_others(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, b, c, d), journal = parts(4)
    tree = await Tree([a.spec()]).start(nursery)
    for part in (b, c, d):
        part.ignores_stop = True
        await tree.supervisor.start_child(part.spec(grace=5.0)).settled()
    journal.clear()
    began = trio.current_time()
    await tree.stop()
    assert trio.current_time() - began == pytest.approx(5.0)
    assert sorted(journal[:3]) == ["b cancelled", "c cancelled", "d cancelled"]
    assert journal[3:] == ["a ends"]


async def test_a_dynamic_child_that_ends_for_good_is_forgotten(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    tree = await Tree().start(nursery)
    child = tree.supervisor.start_child(a.spec(Restart.TEMPORARY))
    await child.settled()
    a.end()
    await reach(child, State.ENDED)
    assert list(tree.supervisor.children()) == []


async def test_a_child_removed_before_it_ran_is_never_started(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    a.ignores_stop = True
    tree = await Tree().start(nursery)
    child = tree.supervisor.start_child(a.spec())
    began = trio.current_time()
    await child.stop(StopReason(Cause.REMOVED))
    assert (a.starts, child.state) == (0, State.ENDED)
    assert trio.current_time() == began


async def test_a_child_removed_while_it_starts_gets_its_grace_and_no_more(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    (a, *_), _ = parts()
    a.ready_after, a.ignores_stop = 2.0, True
    tree = await Tree().start(nursery)
    child = tree.supervisor.start_child(a.spec(grace=6.0))
    await trio.sleep(1)
    began = trio.current_time()
    await child.stop(StopReason(Cause.REMOVED))
    assert trio.current_time() - began == pytest.approx(6.0)
    assert child.state is State.ENDED


async def test_what_is_sent_to_a_dynamic_child_at_once_waits_for_its_first_turn(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    tree = await Tree().start(nursery)
    child = tree.supervisor.start_child(ChildSpec("a", Scribe))
    child.ref.tell(Note("early"))
    assert await child.ref.ask(Words()) == ["early"]


async def test_who_waits_for_a_dynamic_child_that_never_runs_is_told_at_once(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    tree = await Tree().start(nursery)
    child = tree.supervisor.start_child(ChildSpec("a", Scribe))
    reply: Reply[list[str]] = Reply(60)
    child.ref.forward(Words(), reply)
    began = trio.current_time()
    await child.stop(StopReason(Cause.REMOVED))
    with pytest.raises(ActorDown, match="removed"):
        await reply.wait()
    assert trio.current_time() == began
    assert child.ended


async def test_a_dynamic_child_that_cannot_be_made_is_a_crash_of_it_and_not_of_who_starts_it(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    made = 0

    def make() -> Scribe:
        nonlocal made
        made += 1
        if made <= 3:
            raise KeyError("no such thing")
        return Scribe()

    tree = await Tree().start(nursery)
    child = tree.supervisor.start_child(ChildSpec("a", make, backoff=EVEN))
    await reach(child, State.BACKOFF)
    assert child.last_error == "KeyError: 'no such thing'"
    await reach(child, State.RUNNING)
    assert tree.kinds == ["crashed", "restarted", "crashed", "restarted"]
    child.ref.tell(Note("works"))
    assert await child.ref.ask(Words()) == ["works"]


async def test_a_place_is_a_reference_from_before_the_tree_runs(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    branch = ChildSpec("branch", lambda: Supervisor([ChildSpec("leaf", Scribe, backoff=EVEN)]))
    tree = Tree([branch])
    ref: Ref[Protocol] = Ref(Place(lambda: tree.supervisor, "branch", "leaf"))
    assert ref.path == "/branch/leaf"
    with pytest.raises(ActorDown):
        ref.tell(Note("too early"))
    await tree.start(nursery)
    assert await ref.ask(Echo("there")) == "there"
    await tree.child("branch").restart(BY_HAND)
    assert await ref.ask(Words()) == []
    ref.tell(Crash())
    await wait_all_tasks_blocked()
    with pytest.raises(ActorDown, match="ValueError: boom"):
        ref.tell(Note("nobody there"))
