"""The tree: which end brings a child back, how often, and what ends the tree instead."""

from __future__ import annotations

import pytest
import trio
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from supervisor.child import State
from supervisor.errors import StartFailed, StoreCorrupt
from supervisor.inspect import quarantined_paths
from supervisor.intensity import Intensity
from supervisor.service import Context
from supervisor.spec import Cause, ChildSpec, Restart, StopReason
from supervisor.tree import Supervisor
from tests.supervisor.kit import (
    BY_HAND,
    EVEN,
    NEVER,
    ONCE,
    SHUTDOWN,
    Does,
    Tree,
    parts,
    reach,
)

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
