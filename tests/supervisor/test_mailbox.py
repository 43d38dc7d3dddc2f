"""The bounded queue: nobody waits to put something in, and what becomes of it when it is full."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import ActorDown, MailboxFull
from supervisor.mailbox import Mailbox
from supervisor.reply import Reply
from tests.supervisor.kit import Echo, Level, Note


def drain(mailbox: Mailbox) -> list[object]:
    """All messages there are."""
    found: list[object] = []
    while (item := mailbox.take_nowait()) is not None:
        found.append(item)
    return found


async def test_messages_come_in_the_order_they_were_put() -> None:
    mailbox = Mailbox("/a", 4)
    notes = [Note(str(n)) for n in range(4)]
    for note in notes:
        mailbox.put(note)
    assert drain(mailbox) == notes


async def test_a_full_mailbox_refuses_and_says_whose_it_is_and_how_large() -> None:
    mailbox = Mailbox("/gateways/gw01", 2)
    mailbox.put(Note("1"))
    mailbox.put(Note("2"))
    with pytest.raises(MailboxFull, match=r"mailbox of /gateways/gw01 is full \(2 messages\)"):
        mailbox.put(Note("3"))
    assert (mailbox.depth, mailbox.high_water, mailbox.refused) == (2, 2, 1)
    assert drain(mailbox) == [Note("1"), Note("2")]
    mailbox.put(Note("4"))
    assert (mailbox.depth, mailbox.high_water) == (1, 2)


async def test_coalesced_only_the_newest_of_each_key_is_kept() -> None:
    mailbox = Mailbox("/a", 8)
    for value in range(100):
        mailbox.put(Level("left", value))
        mailbox.put(Level("right", -value))
    assert drain(mailbox) == [Level("left", 99), Level("right", -99)]
    assert mailbox.coalesced == 198


async def test_coalescing_goes_on_when_the_mailbox_is_full() -> None:
    mailbox = Mailbox("/a", 1)
    mailbox.put(Note("only"))
    mailbox.put(Level("left", 1))
    mailbox.put(Level("left", 2))
    assert drain(mailbox) == [Note("only"), Level("left", 2)]


async def test_coalesced_keys_are_bounded_and_the_oldest_key_gives_way() -> None:
    mailbox = Mailbox("/a", 3)
    for n in range(5):
        mailbox.put(Level(f"m{n}", n))
    assert drain(mailbox) == [Level("m2", 2), Level("m3", 3), Level("m4", 4)]
    assert mailbox.refused == 2


async def test_a_flood_of_coalesced_messages_takes_no_place_from_others() -> None:
    mailbox = Mailbox("/a", 3)
    for value in range(1000):
        mailbox.put(Level("left", value))
        mailbox.wake()
    for n in range(3):
        mailbox.put(Note(str(n)))
    with pytest.raises(MailboxFull):
        mailbox.put(Note("3"))
    assert drain(mailbox) == [Note("0"), Note("1"), Note("2"), Level("left", 999)]


async def test_post_waits_for_room() -> None:
    mailbox = Mailbox("/a", 1)
    async with trio.open_nursery() as nursery:
        for n in range(4):
            nursery.start_soon(mailbox.post, Note(str(n)))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(MailboxFull):
            mailbox.put(Note("told"))
        got = [await mailbox.take() for _ in range(4)]
    assert {str(m) for m in got} == {str(Note(str(n))) for n in range(4)}
    assert mailbox.depth == 0


async def test_a_post_given_up_is_not_counted_as_waiting() -> None:
    mailbox = Mailbox("/a", 1)
    await mailbox.post(Note("1"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.post, Note("2"))
        await trio.testing.wait_all_tasks_blocked()
        assert mailbox.depth == 2
        nursery.cancel_scope.cancel()
    with trio.move_on_after(0) as scope:
        await mailbox.post(Note("3"))
    assert scope.cancelled_caught
    assert mailbox.depth == 1
    assert drain(mailbox) == [Note("1")]
    assert mailbox.depth == 0


async def test_posts_that_wait_come_in_their_order_and_before_later_ones() -> None:
    mailbox = Mailbox("/a", 1)
    async with trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(mailbox.post, Note(str(n)))
            await trio.testing.wait_all_tasks_blocked()
        got = [mailbox.take_nowait()]
        await trio.lowlevel.checkpoint()
        with pytest.raises(MailboxFull):
            mailbox.put(Note("told"))
        nursery.start_soon(mailbox.post, Note("3"))
        await trio.testing.wait_all_tasks_blocked()
        got += [await mailbox.take() for _ in range(3)]
    assert got == [Note(str(n)) for n in range(4)]


async def test_a_take_that_is_given_up_loses_nothing() -> None:
    mailbox = Mailbox("/a", 2)
    with trio.move_on_after(0):
        await mailbox.take()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.take)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    mailbox.put(Note("kept"))
    assert await mailbox.take() == Note("kept")


async def test_a_taken_message_is_never_counted_before_it_came() -> None:
    mailbox = Mailbox("/a", 1)
    depths: list[int] = []

    async def taker() -> None:
        for _ in range(20):
            await mailbox.take()
            depths.append(mailbox.depth)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(taker)
        for n in range(20):
            await mailbox.post(Note(str(n)))
    assert min(depths) >= 0


async def test_wake_makes_a_waiting_take_return() -> None:
    mailbox = Mailbox("/a", 1)
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            mailbox.wake()
            assert await mailbox.take() is None
            mailbox.wake()
            assert await mailbox.take() is None


async def test_closed_it_tells_waiting_askers_at_once_and_refuses_all_later_ones() -> None:
    mailbox = Mailbox("/a", 2)
    reply: Reply[str] = Reply(60, Echo("x"))
    mailbox.put_ask(reply)
    mailbox.put(Note("lost"))
    mailbox.put(Level("left", 1))
    mailbox.close("crash: boom")
    with pytest.raises(ActorDown, match="/a is down: crash: boom"):
        await reply.wait()
    for late in (Note("late"), Level("left", 2)):
        with pytest.raises(ActorDown):
            mailbox.put(late)
    with pytest.raises(ActorDown):
        await mailbox.post(Note("late"))
    mailbox.wake()


async def test_closed_it_tells_who_waits_for_room() -> None:
    mailbox = Mailbox("/a", 1)
    mailbox.put(Note("1"))
    with trio.fail_after(1), pytest.RaisesGroup(ActorDown):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mailbox.post, Note("2"))
            await trio.testing.wait_all_tasks_blocked()
            mailbox.close("crash: boom")
    assert mailbox.depth == 0


PUTS = st.lists(st.one_of(st.integers(0, 99), st.sampled_from("abcdef"), st.none()), max_size=60)


@given(st.integers(1, 5), PUTS)
async def test_nothing_accepted_is_lost_and_the_newest_of_each_key_survives(
    size: int, actions: list[int | str | None]
) -> None:
    """Numbers are plain messages, letters coalesced ones, None takes one."""
    mailbox = Mailbox("/a", size)
    expected: list[object] = []
    got: list[object] = []
    newest: dict[str, int] = {}
    for at, action in enumerate(actions):
        if action is None:
            item = mailbox.take_nowait()
            if isinstance(item, Level):
                assert newest.pop(item.meter) == item.value
            elif item is not None:
                got.append(item)
        elif isinstance(action, str):
            mailbox.put(Level(action, at))
            if action not in newest and len(newest) >= size:
                newest.pop(next(iter(newest)))
            newest[action] = at
        elif len(expected) - len(got) < size:
            mailbox.put(Note(str(action)))
            expected.append(Note(str(action)))
        else:
            with pytest.raises(MailboxFull):
                mailbox.put(Note(str(action)))
        assert mailbox.depth == len(expected) - len(got)
    rest = drain(mailbox)
    levels = {m.meter: m.value for m in rest if isinstance(m, Level)}
    assert got + [m for m in rest if isinstance(m, Note)] == expected
    assert levels == newest
