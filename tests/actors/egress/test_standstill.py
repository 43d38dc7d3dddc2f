"""All of the appliance stood still, as on a machine that slept: who works could not renew."""

from __future__ import annotations

from pathlib import Path

from trio.testing import MockClock

from actors import lease as leases
from tests.actors.egress.kit import SETTINGS, Hand, Yard, yard

STOOD_STILL = 10 * SETTINGS.lease


async def renew(it: Yard, hand: Hand) -> None:
    """As a worker does, with a lease whose time is over too."""
    await it.bench.store.write(leases.renew, hand.lease, it.services.clock.now(), SETTINGS.lease)


async def stand_still(it: Yard, count: int) -> list[Hand]:
    """So many workers, and then nothing happens for much longer than their leases last."""
    for number in range(count):
        await it.start(f"r{number}", f"c{number}")
        await it.crew.at(number)
    # It looks as it always does; from there on no time passes for anybody, and then very much.
    await it.settled()
    it.pass_time(STOOD_STILL)
    await it.settled()
    return it.crew.hands[:count]


async def pass_quietly(it: Yard, seconds: float) -> None:
    """Time passes as it always does: the queue looks again and again."""
    while seconds > 0:
        it.pass_time(min(seconds, SETTINGS.look_every))
        await it.settled()
        seconds -= SETTINGS.look_every


async def test_workers_get_the_time_to_renew_and_nobody_is_lost(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        hands = await stand_still(it, 3)
        await pass_quietly(it, SETTINGS.renew)
        for hand in hands:
            await renew(it, hand)
        await pass_quietly(it, 2 * SETTINGS.renew)
        assert it.crew.hands == hands
        for hand in hands:
            assert hand.stopped is None
            assert it.told(hand.task.task_id) == ["enqueued", "processing"]
            await hand.end()
            await it.saw(hand.task.task_id, "enqueued", "processing", "stopped")


async def test_who_does_not_renew_after_it_is_lost(tmp_path: Path, mock_clock: MockClock) -> None:
    async with yard(tmp_path, mock_clock) as it:
        renews, hangs = await stand_still(it, 2)
        await renew(it, renews)
        await pass_quietly(it, 2 * SETTINGS.renew + SETTINGS.look_every)
        third = await it.crew.at(2)
        assert third.task.task_id == hangs.task.task_id
        assert (third.lease.fence, third.task.retry_count) == (2, 1)
        assert hangs.stopped is not None
        assert renews.stopped is None
        assert len(it.crew.hands) == 3


async def test_who_crashed_meanwhile_is_replaced_at_once(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        works, crashes = await stand_still(it, 2)
        crashes.crash()
        await it.lost(crashes)
        assert (await it.crew.at(2)).task.task_id == crashes.task.task_id
        assert works.stopped is None
