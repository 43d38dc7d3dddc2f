"""Whatever ends a task, what was recorded of it becomes its files: real workers make them.

Those who recorded before are the kit's: they leave parts on the disk, and are lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.egress import made_records
from actors.egress.finish import finish
from actors.egress.messages import Measured, TaskView
from actors.egress.request import Wanted
from actors.egress.tracks import Folder, Track, tracks
from config.model import Channel, Source
from tests.actors.egress.footage import Footage
from tests.actors.egress.kit import SOURCES, Hand, Yard, yard
from tests.disk import Disk, small_disk
from tests.flows.egress.media import plays, seconds

AS_ONE = 0.2  # seconds
BOTH = ["hls", "mp4"]


class Begun:
    """A task whose first worker has recorded two parts, and has not told how the second ended."""

    def __init__(self, it: Yard, footage: Footage, task_id: str, first: Hand) -> None:
        self.it = it
        self.footage = footage
        self.task_id = task_id
        self.first = first

    @property
    def folder(self) -> Folder:
        """Its folder."""
        return self.it.services.task_folder(self.task_id)

    async def view(self) -> TaskView:
        """How it is."""
        return await self.it.get(self.task_id)

    async def lost(self, hand: Hand) -> None:
        """A worker of it crashes."""
        hand.crash()
        await self.it.lost(hand)

    async def finished(self, *states: str) -> TaskView:
        """Its status, once it has gone this way to its end, and is tidied up."""
        await self.it.saw(self.task_id, *states)
        with trio.fail_after(20):
            while self.it.workers.child(self.task_id) is not None:
                await trio.sleep(0.01)
        return await self.view()

    def whole(self, view: TaskView, *names: str) -> None:
        """It has these files with all that was recorded; each was told of once."""
        assert sorted(file.name for file in view.files) == sorted(names)
        assert sorted(view.payload["files"]) == sorted(names)
        for file in view.files:
            path = self.folder.files / file.name
            assert abs(file.seconds - self.footage.seconds) <= AS_ONE
            assert abs(seconds(path) - self.footage.seconds) <= AS_ONE
            if file.format != "hls":
                plays(path)
        subject = f"egress/{self.task_id}"
        told = [e for e in self.it.events if (e.type, e.subject) == ("egress.file", subject)]
        assert len(told) == len(names)
        assert [part.part for part in view.parts] == [1, 2]
        for part, length in zip(view.parts, self.footage.lengths, strict=True):
            assert part.ended is not None
            assert abs(part.seconds - length) <= AS_ONE
        assert not self.folder.run.exists()


async def begun(it: Yard, footage: Footage, users: tuple[str, ...] = (), **payload: Any) -> Begun:
    """Start one, and record it. `users` with tracks of their own, or all on one."""
    payload = {"filename_pattern": "x", "format": BOTH, **payload}
    if users:
        payload |= {"users": list(users), "individual": True}
    task_id = await it.start(**payload)
    first = await it.crew.at(0)
    found = Begun(it, footage, task_id, first)
    for track in all_tracks(users):
        footage.lay(found.folder, track)
    found.folder.run.mkdir()
    for number, length in enumerate(footage.lengths, 1):
        write = it.bench.store.write
        assert await write(made_records.begin_part, first.lease) == number
        if number == 1:
            await write(made_records.end_part, first.lease, number, length, "the encoder broke")
    return found


def all_tracks(users: tuple[str, ...]) -> list[Track]:
    """The tracks of a task whose names go by the pattern `x`."""
    wanted = Wanted(filename_pattern="x", individual=bool(users))
    return tracks(wanted, list(users), {}, "2026-01-01T00:00:00.000000Z")


async def no_claims(it: Yard) -> None:
    """From now on nothing that is to record is claimed."""
    it.change(disk_free_mb=1e15)
    it.queue.tell(Measured({}, 1.0))


# -- a kill -----------------------------------------------------------------------------


async def test_a_kill_between_the_files_of_two_tracks_loses_neither(
    tmp_path: Path, mock_clock: MockClock, footage: Footage
) -> None:
    """The first track's file is there, the second's is half: the next start makes both."""
    users = ("user1", "user2")
    async with yard(tmp_path, mock_clock) as it:
        it.crew.obedient = False
        task = await begun(it, footage, users, format="mp4")
        await it.stop(task.task_id)
        one, two = all_tracks(users)
        registry = it.services.registry
        assert (await finish(task.folder, one, [1, 2], ["mp4"], registry, ""))[1] == []
        (task.folder.files / f"{two.name}.mp4.part").write_bytes(b"half")
    async with yard(tmp_path, mock_clock, real=True) as it:
        task.it = it
        view = await task.finished("stopped")
        assert (view.state, view.reason, view.error) == ("STOPPED", "user_stop", "")
        task.whole(view, "x-user1.mp4", "x-user2.mp4")
        assert {file.user for file in view.files} == set(users)
        # And nothing else is left of it.
        left = sorted(path.name for path in task.folder.files.iterdir())
        assert left == ["x-user1.mp4", "x-user2.mp4"]


# -- a stop before it is claimed again ------------------------------------------------------


async def test_what_was_put_back_is_finished_when_it_is_stopped(
    tmp_path: Path, mock_clock: MockClock, footage: Footage
) -> None:
    """Also while nothing is claimed: it takes no room, it gives some."""
    async with yard(tmp_path, mock_clock) as it:
        task = await begun(it, footage)
        await no_claims(it)
        await task.lost(task.first)
        assert (await task.view()).state == "ENQUEUED"
        it.crew.real = True
        taken = await it.stop(task.task_id)
        assert (taken.over, taken.state) == (False, "STOPPING")
        states = ("enqueued", "processing", "enqueued", "stopping", "stopped")
        view = await task.finished(*states)
        assert (view.state, view.reason, view.error) == ("STOPPED", "user_stop", "")
        task.whole(view, "x.m3u8", "x.mp4")
        assert it.crew.hands == [task.first]


async def test_a_stop_twice_before_it_is_claimed_again_is_a_stop(
    tmp_path: Path, mock_clock: MockClock, footage: Footage
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task = await begun(it, footage, format="mp4")
        await no_claims(it)
        await task.lost(task.first)
        it.crew.real = True
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(it.stop, task.task_id)
        states = ("enqueued", "processing", "enqueued", "stopping", "stopped")
        task.whole(await task.finished(*states), "x.mp4")


# -- lost too often -----------------------------------------------------------------------


async def test_a_task_whose_workers_were_lost_too_often_has_its_files_all_the_same(
    tmp_path: Path, mock_clock: MockClock, footage: Footage
) -> None:
    async with yard(tmp_path, mock_clock, retries=1) as it:
        task = await begun(it, footage)
        await task.lost(task.first)
        second = await it.crew.at(1)
        it.crew.real = True
        await task.lost(second)
        states = ("enqueued", "processing", "enqueued", "processing", "stopping", "failed")
        view = await task.finished(*states)
        assert (view.state, view.reason) == ("FAILED", "retries_exhausted")
        assert view.error == "its workers were lost too often"
        task.whole(view, "x.m3u8", "x.mp4")


async def test_who_stops_what_was_lost_too_often_has_its_files_all_the_same(
    tmp_path: Path, mock_clock: MockClock, footage: Footage
) -> None:
    """The worker that was to make the files is lost too: for that there are tries of their own."""
    async with yard(tmp_path, mock_clock, retries=0) as it:
        task = await begun(it, footage, format="mp4")
        it.crew.obedient = False
        await it.stop(task.task_id)
    async with yard(tmp_path, mock_clock, real=True, retries=0) as it:
        task.it = it
        view = await task.finished("stopped")
        assert (view.state, view.reason) == ("STOPPED", "user_stop")
        task.whole(view, "x.mp4")


async def test_a_kill_that_was_one_too_many_leaves_the_files_to_the_next_start(
    tmp_path: Path, mock_clock: MockClock, footage: Footage
) -> None:
    async with yard(tmp_path, mock_clock) as it:
        task = await begun(it, footage, format="mp4")
    async with yard(tmp_path, mock_clock, real=True, retries=0) as it:
        task.it = it
        view = await task.finished("stopping", "failed")
        assert (view.state, view.reason) == ("FAILED", "retries_exhausted")
        task.whole(view, "x.mp4")


async def test_what_is_not_possible_any_more_has_failed_with_the_files_of_what_there_is(
    tmp_path: Path, mock_clock: MockClock, footage: Footage
) -> None:
    """Its channel was taken out of the configuration while its worker was lost."""
    async with yard(tmp_path, mock_clock) as it:
        task = await begun(it, footage)
        it.crew.real = True
        it.change(channels={"other": Channel(users=SOURCES)})
        await task.lost(task.first)
        states = ("enqueued", "processing", "enqueued", "processing", "failed")
        view = await task.finished(*states)
        assert (view.state, view.reason) == ("FAILED", "not_configured")
        task.whole(view, "x.m3u8", "x.mp4")


# -- a full disk ----------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small one that the recordings are on; the database is elsewhere."""
    with small_disk(tmp_path, "4m") as found:
        (tmp_path / "egress").symlink_to(found.root)
        yield found


async def test_no_room_for_a_copy_is_told_and_the_playlist_is_kept(
    tmp_path: Path, mock_clock: MockClock, footage: Footage, disk: Disk
) -> None:
    """Not even for a playlist, but for what the worker before had set aside."""
    async with yard(tmp_path, mock_clock) as it:
        it.crew.obedient = False
        task = await begun(it, footage)
        (task.folder.run / "room").write_bytes(bytes(32 * 1024))
        disk.fill()
        await it.stop(task.task_id)
        it.crew.real = True
        await task.lost(task.first)
        view = await task.finished("enqueued", "processing", "stopping", "failed")
        assert (view.state, view.reason) == ("FAILED", "not_finished")
        assert view.error.startswith("stopped as asked; x.mp4: ")
        task.whole(view, "x.m3u8")
        assert not (task.folder.files / "x.mp4").exists()
        segments = list((task.folder.files / "x.segments").rglob("*.ts"))
        assert len(segments) == len(list(footage.root.rglob("*.ts")))


# -- snapshots ------------------------------------------------------------------------------


async def test_pictures_of_users_with_names_that_begin_alike_are_counted_apart(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """Those of the next part go on behind one's own, and not behind the other's."""
    users = {name: Source(url=f"test:{name}") for name in ("bob", "bob-1")}
    async with yard(tmp_path, mock_clock, channels={"*": Channel(users=users)}) as it:
        video = {"width": 160, "height": 90}
        wanted: dict[str, Any] = {"filename_pattern": "x", "individual": True}
        wanted["interval_in_ms"] = 200
        task_id = await it.start(cmd="snapshot", video=video, **wanted)
        first = await it.crew.at(0)
        await it.bench.store.write(made_records.begin_part, first.lease)
        files = it.services.task_folder(task_id).files
        files.mkdir(parents=True)
        before = {"x-bob": 1, "x-bob-1": 3}
        for stem, count in before.items():
            for number in range(1, count + 1):
                (files / f"{stem}-{number:06d}.jpg").write_bytes(b"an earlier one")
        it.crew.real = True
        first.crash()
        await it.lost(first)

        def of(view: TaskView, user: str) -> list[str]:
            return [file.name for file in view.files if file.user == user]

        def enough(view: TaskView) -> bool:
            return all(len(of(view, user)) >= before[f"x-{user}"] + 2 for user in users)

        with trio.fail_after(30):
            while not enough(await it.get(task_id)):
                await trio.sleep(0.05)
        await it.stop(task_id)
        states = ("enqueued", "processing", "enqueued", "processing", "stopping", "stopped")
        await it.saw(task_id, *states)
        view = await it.get(task_id)
        assert enough(view)
        for user in users:
            names = of(view, user)
            assert names == [f"x-{user}-{n + 1:06d}.jpg" for n in range(len(names))]
            for name in names:
                earlier = (files / name).read_bytes() == b"an earlier one"
                assert earlier == (int(name[-10:-4]) <= before[f"x-{user}"])
        assert {file.name for file in view.files} == {path.name for path in files.iterdir()}
