"""The tree as people and programs see it."""

from __future__ import annotations

import time

import pytest
import trio
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from supervisor.child import State
from supervisor.errors import ActorDown, MailboxFull
from supervisor.inspect import Node, describe, inspect, quarantined_paths, stuck_paths
from supervisor.intensity import Intensity
from supervisor.process import Process
from supervisor.service import Context
from supervisor.spec import Cause, ChildSpec, StopReason
from supervisor.tree import Supervisor
from tests.supervisor.kit import (
    EVEN,
    Crash,
    Does,
    Echo,
    Hold,
    Level,
    Note,
    Part,
    Scribe,
    Tree,
    Words,
    reach,
    scribe,
)
from tests.supervisor.procs import registry, run


async def test_the_whole_tree_is_shown_in_the_order_of_its_start(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    leaves = [ChildSpec("x", Scribe), ChildSpec("y", Scribe)]
    tree = await Tree(
        [ChildSpec("branch", lambda: Supervisor(leaves)), ChildSpec("last", Scribe)]
    ).start(nursery)
    tree.supervisor.start_child(ChildSpec("dynamic", Scribe))
    root = await inspect(tree.root.child)

    def outline(node: Node) -> list[tuple[str, str]]:
        return [(node.path, node.kind), *(line for c in node.children for line in outline(c))]

    assert outline(root) == [
        ("/", "Supervisor"),
        ("/branch", "Supervisor"),
        ("/branch/x", "Scribe"),
        ("/branch/y", "Scribe"),
        ("/last", "Scribe"),
        ("/dynamic", "Scribe"),
    ]


async def test_state_since_restarts_and_how_many_are_left(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    part = Part("a", [])
    tree = await Tree([part.spec(intensity=Intensity(2, 60))]).start(nursery)
    child = tree.child("a")

    def seen() -> tuple[str, int, int, str | None, str | None]:
        node = describe(child, {})
        assert abs(node.since - time.time()) < 60
        return node.state, node.restarts, node.restarts_left, node.last_reason, node.last_error

    boom = "ValueError: a crashed"
    assert seen() == ("running", 0, 2, None, None)
    part.crash()
    await reach(child, State.BACKOFF)
    await wait_all_tasks_blocked()
    assert seen() == ("backoff", 0, 1, f"crash: {boom}", boom)
    await reach(child, State.RUNNING)
    assert seen() == ("running", 1, 1, f"crash: {boom}", boom)
    part.crash()
    await reach(child, State.BACKOFF)
    await reach(child, State.RUNNING)
    part.crash()
    await reach(child, State.QUARANTINED)
    assert seen() == ("quarantined", 2, 0, f"crash: {boom}", boom)
    assert quarantined_paths(tree.root.child) == ["/a"]
    await child.restart(StopReason(Cause.BY_HAND))
    assert seen() == ("running", 3, 2, f"crash: {boom}", boom)
    # The window slides: what is left comes back without anybody's doing.
    part.crash()
    await reach(child, State.BACKOFF)
    await reach(child, State.RUNNING)
    await trio.sleep(60)
    assert seen()[2] == 2


async def test_a_mailbox_shows_what_waits_what_came_and_what_became_of_it(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    class Small(Scribe):
        mailbox_size = 3

    actor = Small()
    ref, child, tree = await scribe(nursery, lambda: actor)
    empty = describe(child, {}).mailbox
    assert empty is not None
    assert (empty.size, empty.depth, empty.high_water, empty.handled) == (3, 0, 0, 0)
    assert (empty.p50_ms, empty.p99_ms) == (None, None)

    async def hold() -> None:
        await ref.ask(Hold(), 60)

    nursery.start_soon(hold)
    await actor.busy.wait()
    for n in range(3):
        ref.tell(Note(str(n)))
    with pytest.raises(MailboxFull):
        ref.tell(Note("too much"))
    ref.tell(Level("left", 1))
    ref.tell(Level("left", 2))
    full = describe(child, {}).mailbox
    assert full is not None
    assert (full.depth, full.high_water, full.refused, full.coalesced) == (3, 3, 1, 1)
    actor.gate.set()
    await wait_all_tasks_blocked()
    done = describe(child, {}).mailbox
    assert done is not None
    assert (done.depth, done.high_water, done.handled) == (0, 3, 5)
    assert done.p50_ms is not None
    assert done.p99_ms is not None
    assert 0 < done.p50_ms <= done.p99_ms
    # Counted afresh by each incarnation.
    ref.tell(Crash())
    await reach(child, State.BACKOFF)
    await reach(child, State.RUNNING)
    again = describe(child, {}).mailbox
    assert again is not None
    assert (again.handled, again.high_water) == (0, 0)
    assert tree.kinds == ["crashed", "restarted"]


async def test_what_takes_too_long_is_stuck_by_the_childs_own_measure(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    async def long(context: Context) -> None:
        context.ready()
        context.begin("commit 3 commands")
        await context.stopped()

    tree = await Tree(
        [
            ChildSpec("patient", lambda: Does(long), stuck_after=100.0),
            ChildSpec("quick", lambda: Does(long), stuck_after=1.0),
            ChildSpec("idle", Scribe, stuck_after=1.0),
        ]
    ).start(nursery)
    await trio.sleep(5)
    nodes = {node.path: node for node in (await inspect(tree.root.child)).children}
    assert (nodes["/quick"].doing, nodes["/quick"].doing_for) == ("commit 3 commands", 5.0)
    assert {path: node.stuck for path, node in nodes.items()} == {
        "/patient": False,
        "/quick": True,
        "/idle": False,
    }
    assert stuck_paths(tree.root.child) == ["/quick"]


async def test_what_has_ended_does_nothing_any_more(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    ref, child, _ = await scribe(nursery, backoff=EVEN)
    ref.tell(Crash())
    await reach(child, State.BACKOFF)
    await trio.sleep(0.5)
    node = describe(child, {})
    assert (node.state, node.doing, node.stuck, node.os_process) == ("backoff", None, False, None)
    with pytest.raises(ActorDown):
        await ref.ask(Words())


async def test_an_os_process_shows_its_pid_processor_time_and_memory(
    nursery: trio.Nursery,
) -> None:
    processes: list[Process] = []

    async def runs(context: Context) -> None:
        async with trio.open_nursery() as inner:
            process, words = await run(inner, "sleep 300 & echo ready; wait", registry())
            await words.starting("ready")
            processes.append(process)
            context.os_pid = process.pid
            context.ready()
            await context.stopped()
            await process.kill()

    with trio.fail_after(20):
        tree = await Tree([ChildSpec("job", lambda: Does(runs), grace=10.0)]).start(nursery)
        (node,) = (await inspect(tree.root.child)).children
        shown = node.os_process
        assert shown is not None
        assert (shown.pid, shown.processes) == (processes[0].pid, 2)
        assert shown.cpu_seconds is not None
        assert shown.cpu_seconds >= 0
        assert shown.memory_bytes is not None
        assert shown.memory_bytes > 10_000
        # Without a look at /proc there is the pid at least.
        assert describe(tree.child("job"), {}).os_process is not None
        await tree.stop()
        assert describe(tree.child("job"), {}).os_process is None


async def test_an_answer_says_nothing_of_what_is_not_there(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    ref, _, tree = await scribe(nursery)
    assert await ref.ask(Echo("x")) == "x"
    node = await inspect(tree.root.child)
    assert (node.mailbox, node.os_process, node.last_error, node.doing) == (None, None, None, None)
