"""The tree: children that come and go while it runs, and references from before it."""

from __future__ import annotations

import pytest
import trio
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from supervisor.child import State
from supervisor.errors import ActorDown, StartFailed
from supervisor.ref import Ref
from supervisor.reply import Reply
from supervisor.spec import Cause, ChildSpec, Restart, StopReason, Strategy
from supervisor.tree import Place, Supervisor
from tests.supervisor.kit import (
    BY_HAND,
    EVEN,
    Crash,
    Echo,
    Note,
    Protocol,
    Scribe,
    Tree,
    Words,
    parts,
    reach,
)


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
