"""Tell and ask: what whoever holds a reference can rely on."""

from __future__ import annotations

import pytest
import trio
from trio.abc import Clock
from trio.testing import wait_all_tasks_blocked

from supervisor.child import State
from supervisor.errors import ActorDown, AskExpired, MailboxFull, Rejected
from supervisor.mailbox import Ask
from supervisor.ref import Ref
from supervisor.reply import TICK, Reply
from supervisor.spec import Cause, Restart, StopReason
from tests.supervisor.kit import (
    Crash,
    CrashAsked,
    Defer,
    Done,
    Echo,
    Hold,
    Level,
    Note,
    Protocol,
    Refuse,
    Scribe,
    Settle,
    Words,
    reach,
    scribe,
)


class Small(Scribe):
    mailbox_size = 2


class Outcome:
    """How an ask ended."""

    def __init__(self) -> None:
        self.value: str | None = None
        self.error: BaseException | None = None
        self.at = float("nan")

    async def of(self, ref: Ref[Protocol], message: Ask[str], timeout: float = 60.0) -> None:
        try:
            self.value = await ref.ask(message, timeout)
        except (ActorDown, AskExpired, MailboxFull, Rejected) as error:
            self.error = error
        self.at = trio.current_time()


async def hold(nursery: trio.Nursery, ref: Ref[Protocol], actor: Scribe) -> Outcome:
    """Keep an actor busy; how that ask ends."""
    outcome = Outcome()
    nursery.start_soon(outcome.of, ref, Hold())
    await actor.busy.wait()
    return outcome


async def test_ask_returns_the_typed_answer(nursery: trio.Nursery, autojump_clock: Clock) -> None:
    ref, _, _ = await scribe(nursery)
    word: str = await ref.ask(Echo("hello"))
    words: list[str] = await ref.ask(Words())
    assert (word, words) == ("hello", ["hello"])


async def test_tell_never_waits_and_what_was_told_comes_before_what_is_asked_after(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    ref, _, _ = await scribe(nursery)
    for n in range(10):
        ref.tell(Note(str(n)))
    assert ref.waiting == 10
    assert await ref.ask(Words()) == [str(n) for n in range(10)]
    assert ref.waiting == 0


async def test_when_full_tell_and_ask_raise_and_a_coalescing_tell_does_not(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    actor = Small()
    ref, _, _ = await scribe(nursery, lambda: actor)
    await hold(nursery, ref, actor)
    ref.tell(Note("1"))
    ref.tell(Note("2"))
    with pytest.raises(MailboxFull):
        ref.tell(Note("3"))
    with pytest.raises(MailboxFull):
        await ref.ask(Echo("3"))
    for value in range(5):
        ref.tell(Level("left", value))
    actor.gate.set()
    await wait_all_tasks_blocked()
    assert await ref.ask(Words()) == ["1", "2", "left=4"]


async def test_without_an_answer_the_asker_is_told_when_its_deadline_has_passed(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    actor = Scribe()
    ref, _, _ = await scribe(nursery, lambda: actor)
    await hold(nursery, ref, actor)
    began = trio.current_time()
    with pytest.raises(AskExpired, match=r"no answer within 2\.5 s"):
        await ref.ask(Echo("late"), timeout=2.5)
    assert 2.5 <= trio.current_time() - began <= 2.5 + 2 * TICK


async def test_deadlines_of_many_askers_pass_each_in_its_turn(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    actor = Scribe()
    ref, _, _ = await scribe(nursery, lambda: actor)
    await hold(nursery, ref, actor)
    began = trio.current_time()
    timeouts = [30.0, 0.5, 7.0, 0.5, 0.0, 3.0]
    outcomes = [Outcome() for _ in timeouts]
    for outcome, timeout in zip(outcomes, timeouts, strict=True):
        nursery.start_soon(outcome.of, ref, Echo("late"), timeout)
    await trio.sleep(31)
    for outcome, timeout in zip(outcomes, timeouts, strict=True):
        assert isinstance(outcome.error, AskExpired)
        assert timeout <= outcome.at - began <= timeout + 2 * TICK


async def test_an_expired_ask_is_skipped(nursery: trio.Nursery, autojump_clock: Clock) -> None:
    actor = Scribe()
    ref, _, _ = await scribe(nursery, lambda: actor)
    await hold(nursery, ref, actor)
    with pytest.raises(AskExpired):
        await ref.ask(Echo("expired"), timeout=1)
    actor.gate.set()
    await ref.ask(Echo("in time"))
    assert actor.journal == ["in time"]


async def test_an_ask_whose_asker_was_cancelled_is_skipped(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    actor = Scribe()
    ref, _, _ = await scribe(nursery, lambda: actor)
    await hold(nursery, ref, actor)
    with trio.move_on_after(1) as scope:
        await ref.ask(Echo("given up"), timeout=60)
    assert scope.cancelled_caught
    actor.gate.set()
    await ref.ask(Echo("in time"))
    assert actor.journal == ["in time"]


async def test_an_answer_that_comes_after_the_deadline_is_dropped(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    actor = Scribe()
    ref, _, _ = await scribe(nursery, lambda: actor)
    outcome = Outcome()
    nursery.start_soon(outcome.of, ref, Hold(), 1.0)
    await trio.sleep(5)
    actor.gate.set()
    assert await ref.ask(Echo("next")) == "next"
    assert isinstance(outcome.error, AskExpired)


async def test_a_rejected_comes_to_the_asker_with_code_message_and_details(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    ref, _, _ = await scribe(nursery)
    with pytest.raises(Rejected) as caught:
        await ref.ask(Refuse())
    error = caught.value
    assert (error.code, error.message, error.details) == ("no", "not today", {"word": "no"})


@pytest.mark.parametrize("how", ["crash", "stop", "end"])
async def test_every_waiting_asker_is_told_as_soon_as_the_actor_ends(
    nursery: trio.Nursery, autojump_clock: Clock, how: str
) -> None:
    """The queued, the deferred, and, in a crash, the one being handled: never by timeout."""
    actor = Scribe()
    ref, _, tree = await scribe(nursery, lambda: actor, restart=Restart.TRANSIENT)
    deferred, queued, handled = Outcome(), Outcome(), Outcome()
    nursery.start_soon(deferred.of, ref, Defer())
    await wait_all_tasks_blocked()
    busy = await hold(nursery, ref, actor)
    match how:
        case "crash":
            nursery.start_soon(handled.of, ref, CrashAsked())
        case "stop":
            nursery.start_soon(tree.stop)
        case _:
            ref.tell(Done())
    await wait_all_tasks_blocked()
    if how != "stop":
        nursery.start_soon(queued.of, ref, Echo("never"))
        await wait_all_tasks_blocked()
    began = trio.current_time()
    actor.gate.set()
    await wait_all_tasks_blocked()
    assert busy.value == "held"
    assert isinstance(deferred.error, ActorDown)
    if how != "stop":
        assert isinstance(queued.error, ActorDown)
    if how == "crash":
        assert isinstance(handled.error, ActorDown)
        assert "CrashAsked" in str(handled.error)
    reason = {"crash": "crashed", "stop": "shutdown: test over", "end": "normal"}[how]
    assert deferred.error.reason == reason
    assert deferred.at == began


async def test_an_asker_is_told_when_the_handling_of_its_ask_is_cancelled(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    actor = Scribe()
    ref, _, tree = await scribe(nursery, lambda: actor, grace=2.0)
    busy = await hold(nursery, ref, actor)
    began = trio.current_time()
    await tree.stop()
    assert isinstance(busy.error, ActorDown)
    assert busy.at - began == pytest.approx(2.0)


async def test_a_ref_survives_restarts_and_says_why_there_is_nobody_in_between(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    ref, child, _ = await scribe(nursery)
    ref.tell(Crash())
    await reach(child, State.BACKOFF)
    with pytest.raises(ActorDown, match="/scribe is down: backoff after crash: ValueError: boom"):
        ref.tell(Note("nobody there"))
    with pytest.raises(ActorDown):
        await ref.ask(Words())
    assert ref.waiting == 0
    await reach(child, State.RUNNING)
    assert await ref.ask(Echo("again")) == "again"
    assert (ref.path, repr(ref)) == ("/scribe", "<Ref /scribe>")


async def test_what_waited_for_the_old_incarnation_does_not_reach_the_new_one(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    ref, child, _ = await scribe(nursery)
    ref.tell(Crash())
    ref.tell(Note("old"))
    await reach(child, State.BACKOFF)
    await reach(child, State.RUNNING)
    assert await ref.ask(Words()) == []


async def test_forwarded_the_other_actor_answers_the_one_who_asked(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    ref, _, _ = await scribe(nursery)
    reply: Reply[str] = Reply(5)
    ref.forward(Echo("forwarded"), reply)
    assert await reply.wait() == "forwarded"


async def test_forwarded_to_where_nobody_is_or_no_room_the_asker_is_told(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    actor = Small()
    ref, child, tree = await scribe(nursery, lambda: actor)
    await hold(nursery, ref, actor)
    ref.tell(Note("1"))
    ref.tell(Note("2"))
    refused: Reply[str] = Reply(5)
    ref.forward(Echo("no room"), refused)
    with pytest.raises(MailboxFull):
        await refused.wait()
    actor.gate.set()
    await tree.supervisor._stop_all(StopReason(Cause.SHUTDOWN))
    down: Reply[str] = Reply(5)
    ref.forward(Echo("nobody"), down)
    with pytest.raises(ActorDown):
        await down.wait()
    assert child.state is State.ENDED


async def test_the_first_answer_counts_and_later_ones_are_dropped(
    autojump_clock: Clock,
) -> None:
    reply: Reply[str] = Reply(5)
    reply.set("first")
    reply.set("second")
    reply.fail(ActorDown("/a", "too late"))
    assert reply.done
    assert await reply.wait() == "first"


async def test_a_deferred_ask_is_answered_later_and_others_are_served_meanwhile(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    ref, _, _ = await scribe(nursery)
    first, second = Outcome(), Outcome()
    nursery.start_soon(first.of, ref, Defer())
    nursery.start_soon(second.of, ref, Defer())
    await wait_all_tasks_blocked()
    assert await ref.ask(Echo("meanwhile")) == "meanwhile"
    ref.tell(Settle("settled"))
    await wait_all_tasks_blocked()
    assert (first.value, second.value) == ("settled", "settled")


async def test_deferred_asks_that_nobody_waits_for_do_not_pile_up(
    nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    actor = Scribe()
    ref, _, _ = await scribe(nursery, lambda: actor)
    for _ in range(500):
        with trio.move_on_after(1):
            await ref.ask(Defer(), timeout=60)
    assert len(actor.held) == 500
    assert actor._deferred is not None
    assert len(actor._deferred) <= 64
