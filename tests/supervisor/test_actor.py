"""An actor: one message at a time, from start to stop."""

from __future__ import annotations

import pytest
import trio
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from supervisor.child import State
from supervisor.errors import ActorDown, Rejected
from supervisor.inspect import describe, stuck_paths
from supervisor.service import Context
from supervisor.spec import Cause, Restart, StopReason
from tests.supervisor.kit import (
    Crash,
    Done,
    Echo,
    Hold,
    Note,
    Protocol,
    RefuseTold,
    Scribe,
    Words,
    reach,
    scribe,
)


class Slow(Scribe):
    """Takes a second for each message."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = self.most_inside = 0

    async def handle(self, message: Protocol) -> object:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        await trio.sleep(1)
        self.inside -= 1
        return await super().handle(message)


async def test_one_message_at_a_time_in_the_order_they_came(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    actor = Slow()
    ref, _, _ = await scribe(nursery, lambda: actor)
    for n in range(5):
        ref.tell(Note(str(n)))
    assert await ref.ask(Words(), timeout=10) == ["0", "1", "2", "3", "4"]
    assert actor.most_inside == 1


class Wakes(trio.abc.Instrument):
    """Counts how often a task is run."""

    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name == self.name


async def test_a_burst_costs_one_wake_up(nursery: trio.Nursery, autojump_clock: Clock) -> None:
    actor = Scribe()
    ref, _, _ = await scribe(nursery, lambda: actor)
    await wait_all_tasks_blocked()
    wakes = Wakes("/scribe")
    trio.lowlevel.add_instrument(wakes)
    for n in range(50):
        ref.tell(Note(str(n)))
    await wait_all_tasks_blocked()
    trio.lowlevel.remove_instrument(wakes)
    assert len(actor.journal) == 50
    assert wakes.count == 1


class Chain(Scribe):
    """Tells itself the next number, without end."""

    budget = 8

    async def handle(self, message: Protocol) -> object:
        if isinstance(message, Note):
            self.context.child.ref.tell(Note(message.word))
        return await super().handle(message)


async def test_an_actor_that_is_never_idle_lets_others_have_their_turn(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    actor = Chain()
    ref, child, _ = await scribe(nursery, lambda: actor)
    ref.tell(Note("on"))
    for _ in range(20):
        await trio.lowlevel.checkpoint()
    # It has run for twenty turns of the loop, eight messages each, and here we are.
    assert 8 <= len(actor.journal) <= 21 * 8
    await child.stop(StopReason(Cause.REMOVED))
    assert child.ended


async def test_a_rejected_that_nobody_waits_for_does_not_end_the_actor(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    ref, child, _ = await scribe(nursery)
    ref.tell(RefuseTold())
    assert await ref.ask(Echo("alive")) == "alive"
    assert child.restarts == 0


async def test_any_other_exception_ends_it(nursery: trio.Nursery, autojump_clock: Clock) -> None:
    ref, child, tree = await scribe(nursery)
    ref.tell(Crash())
    await reach(child, State.BACKOFF)
    assert child.last_reason == StopReason(Cause.CRASH, "ValueError: boom")
    assert child.last_error == "ValueError: boom"
    assert tree.kinds == ["crashed"]


async def test_a_crash_of_its_own_task_is_its_crash(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    class Spawner(Scribe):
        async def on_start(self) -> None:
            self.spawn(self.fail, "worker lost")

        async def fail(self, word: str) -> None:
            await self.gate.wait()
            raise RuntimeError(word)

    actor = Spawner()
    _, child, _ = await scribe(nursery, lambda: actor)
    actor.gate.set()
    await reach(child, State.BACKOFF)
    assert child.last_error == "RuntimeError: worker lost"


async def test_a_rejected_out_of_its_own_task_is_a_crash(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    class Spawner(Scribe):
        async def on_start(self) -> None:
            self.spawn(self.fail)

        async def fail(self) -> None:
            await self.gate.wait()
            raise Rejected("no", "nobody asked")

    actor = Spawner()
    _, child, _ = await scribe(nursery, lambda: actor)
    actor.gate.set()
    await reach(child, State.BACKOFF)
    assert child.last_error == "Rejected: nobody asked"


async def test_it_is_ready_when_on_start_returns(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    class Starts(Scribe):
        async def on_start(self) -> None:
            await trio.sleep(3)

    began = trio.current_time()
    _, child, _ = await scribe(nursery, Starts)
    assert trio.current_time() - began == pytest.approx(3.0)
    assert child.state is State.RUNNING


async def test_what_comes_while_it_starts_waits_until_it_is_ready(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    class Starts(Scribe):
        async def on_start(self) -> None:
            await self.gate.wait()
            self.journal.append("started")

    actor = Starts()
    nursery.start_soon(scribe, nursery, lambda: actor)
    await wait_all_tasks_blocked()
    ref = actor.context.child.ref
    ref.tell(Note("early"))
    actor.gate.set()
    assert await ref.ask(Words()) == ["started", "early"]


async def test_its_own_work_posts_and_waits_for_room_instead_of_being_refused(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    class Poster(Slow):
        mailbox_size = 2

        async def on_start(self) -> None:
            self.spawn(self.work)

        async def work(self) -> None:
            for n in range(10):
                await self.post(Note(str(n)))
            self.gate.set()

    actor = Poster()
    ref, _, _ = await scribe(nursery, lambda: actor)
    with trio.fail_after(20):
        await actor.gate.wait()
    await trio.sleep(3)
    assert await ref.ask(Words()) == [str(n) for n in range(10)]


async def test_a_report_that_comes_after_the_end_is_dropped(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    actor = Scribe()
    _, _, tree = await scribe(nursery, lambda: actor)
    await tree.stop()
    await actor.post(Note("too late"))
    assert "too late" not in actor.journal


async def test_on_stop_runs_with_the_reason(nursery: trio.Nursery, autojump_clock: Clock) -> None:
    actor = Scribe()
    _, child, tree = await scribe(nursery, lambda: actor)
    await tree.stop(StopReason(Cause.SHUTDOWN, "SIGTERM"))
    assert actor.journal == ["stopped (shutdown: SIGTERM)"]
    assert child.last_reason == StopReason(Cause.SHUTDOWN, "SIGTERM")


async def test_stop_goes_round_a_full_mailbox(nursery: trio.Nursery, autojump_clock: Clock) -> None:
    actor = Slow()
    ref, _, tree = await scribe(nursery, lambda: actor)
    for n in range(actor.mailbox_size):
        ref.tell(Note(str(n)))
    began = trio.current_time()
    await tree.stop()
    # The one being handled is finished; the other 63 are not waited for.
    assert trio.current_time() - began <= 1.0
    assert actor.journal[-1] == "stopped (shutdown: test over)"
    assert len(actor.journal) <= 2


async def test_stopped_while_it_waits_for_messages_it_ends_at_once(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    _, child, tree = await scribe(nursery)
    await wait_all_tasks_blocked()
    began = trio.current_time()
    await tree.stop()
    assert child.ended
    assert trio.current_time() == began


async def test_its_own_tasks_are_cancelled_after_on_stop(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    class Worker(Scribe):
        async def on_start(self) -> None:
            self.spawn(self.work)

        async def work(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                self.journal.append("work cancelled")

    actor = Worker()
    _, _, tree = await scribe(nursery, lambda: actor)
    await wait_all_tasks_blocked()
    await tree.stop()
    assert actor.journal == ["stopped (shutdown: test over)", "work cancelled"]


async def test_it_may_end_by_itself(nursery: trio.Nursery, autojump_clock: Clock) -> None:
    ref, child, _ = await scribe(nursery, restart=Restart.TEMPORARY)
    ref.tell(Done())
    await reach(child, State.ENDED)
    assert child.last_reason == StopReason(Cause.NORMAL)


async def test_it_may_end_by_itself_out_of_its_own_task_while_nothing_comes(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    class Ends(Scribe):
        async def on_start(self) -> None:
            self.spawn(self.work)

        async def work(self) -> None:
            await trio.sleep(5)
            self.stop_soon()

    _, child, _ = await scribe(nursery, Ends, restart=Restart.TEMPORARY)
    await reach(child, State.ENDED, within=60)
    assert child.last_reason == StopReason(Cause.NORMAL)


async def test_what_it_is_doing_and_for_how_long_is_shown(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    actor = Scribe()
    ref, child, tree = await scribe(nursery, lambda: actor, stuck_after=10.0)
    assert describe(child, {}).doing is None
    nursery.start_soon(_ask_quietly, ref.ask, Hold())
    await actor.busy.wait()
    await trio.sleep(4)
    node = describe(child, {})
    assert (node.doing, node.doing_for, node.stuck) == ("Hold", 4.0, False)
    assert stuck_paths(tree.root.child) == []
    await trio.sleep(7)
    assert describe(child, {}).stuck
    assert stuck_paths(tree.root.child) == ["/scribe"]
    actor.gate.set()
    await wait_all_tasks_blocked()
    node = describe(child, {})
    assert (node.doing, node.doing_for, node.stuck) == (None, None, False)


async def test_a_start_and_a_stop_that_take_long_are_shown_as_well(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    class Ponders(Scribe):
        async def on_start(self) -> None:
            await trio.sleep(2)

        async def on_stop(self, reason: StopReason) -> None:
            await trio.sleep(2)

    contexts: list[Context] = []

    class Watched(Ponders):
        async def run(self, context: Context) -> None:
            contexts.append(context)
            await super().run(context)

    async def begin() -> None:
        _, _, tree = await scribe(nursery, Watched)
        await tree.stop()

    nursery.start_soon(begin)
    await trio.sleep(1)
    assert contexts[0].doing == "start"
    await trio.sleep(2)
    assert contexts[0].doing == "stop (shutdown: test over)"


async def _ask_quietly(ask: object, message: object) -> None:
    assert callable(ask)
    try:
        await ask(message, 60.0)
    except ActorDown:
        return
