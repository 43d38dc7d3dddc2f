"""The uploader between a real store and a real bucket, when one of them or a file's disk refuses.

What it does in a whole appliance is in tests/flows/test_uploads.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from actors.egress import records, upload_records
from actors.egress.bucket import PIECE
from actors.egress.finish import Made, finish
from actors.egress.job import end_with_uploads, objects_of
from actors.egress.machine import Input
from actors.egress.tracks import Folder, Track
from actors.egress.uploader import AGAIN, AT_ONCE, Uploader
from config.model import Upload
from supervisor.child import State
from supervisor.event import Event
from supervisor.spec import ChildSpec
from supervisor.transaction import Reading
from tests.actors.egress.footage import ALL, Footage
from tests.actors.egress.kit import Hand, Yard, yard
from tests.appliance import ports
from tests.disk import small_disk
from tests.s3 import S3
from tests.supervisor.kit import Tree

UPLOADED = "egress.uploaded"
LATER = "9999-01-01T00:00:00.000000Z"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    """One for all: each task's objects have names of their own."""
    server = S3()
    trio.run(server.start)
    try:
        yield server
    finally:
        server.stop()


class Desk:
    """A yard with an uploader beside it. `settings` are those in force; None: nothing goes up."""

    def __init__(self, it: Yard, s3: S3) -> None:
        self.it = it
        self.s3 = s3
        self.settings: Upload | None = None
        # How often it looked at the settings, and how often it has tried all that was due.
        self.looks = self.rounds = 0
        self.tree = Tree([ChildSpec("uploads", self._uploader, grace=2.0)])

    def _uploader(self) -> Uploader:
        services = self.it.services
        return Uploader(
            services.store,
            self._look,
            services.folder,
            services.clock,
            services.uploads,
            self._tried,
        )

    def _look(self) -> Upload | None:
        self.looks += 1
        return self.settings

    def _tried(self, _given_up: int) -> None:
        self.rounds += 1

    async def go(self, **upload: Any) -> None:
        """Return when it has looked at these settings, and come to the end of a round with them."""
        self.settings = Upload(**{**self.s3.settings, **upload})
        before = self.looks
        for count in (1, 2):
            self.it.services.uploads()
            await until(lambda: self.looks >= before + count)  # noqa: B023 - waited for here

    async def made(self, *names: str, size: int = 100) -> tuple[str, Folder]:
        """A task that has ended with these files, all of them to be uploaded."""
        task_id, folder, hand = await self._begun()
        done = []
        for name in names:
            (folder.files / name).write_bytes(bytes(size))
            done.append(Made(name, name.rpartition(".")[2], "", size, 1.0))
        await self._ended(hand, folder, done)
        return task_id, folder

    async def recorded(self, footage: Footage) -> tuple[str, Folder]:
        """A task that has ended with a real recording, as HLS and MP4."""
        task_id, folder, hand = await self._begun()
        track = Track("x", ())
        footage.lay(folder, track)
        registry = self.it.services.registry
        done, problems = await finish(folder, track, ALL, ["hls", "mp4"], registry, "/test")
        assert problems == []
        await self._ended(hand, folder, done)
        return task_id, folder

    async def _begun(self) -> tuple[str, Folder, Hand]:
        it = self.it
        number = len(it.crew.hands)
        task_id = await it.start(f"r{number}", f"c{number}")
        hand = await it.crew.at(number)
        assert hand.task.task_id == task_id
        folder = it.services.task_folder(task_id)
        folder.files.mkdir(parents=True)
        return task_id, folder, hand

    async def _ended(self, hand: Hand, folder: Folder, done: list[Made]) -> None:
        args = (Input.DONE, "", "", done, objects_of(folder, done))
        await self.it.bench.store.write(end_with_uploads, hand.lease, *args)
        hand.stop_soon()

    # -- what is seen of it -------------------------------------------------------

    def states(self, task_id: str) -> dict[str, str]:
        """Of a task's files, as they are kept."""
        wanted = f"SELECT name, state FROM egress_files WHERE task_id = '{task_id}'"
        return {str(name): str(state) for name, state in self.it.bench.rows(wanted)}

    async def uploaded(self, task_id: str, *names: str) -> None:
        """Return when these have been told of; each is told of once."""
        subject = f"egress/{task_id}"

        def told() -> list[str]:
            found = [e for e in self.it.events if (e.type, e.subject) == (UPLOADED, subject)]
            return sorted(msgspec.json.decode(e.data)["file"] for e in found)

        await self.it.until(lambda: len(told()) >= len(names))
        assert told() == sorted(names)

    async def there(self, task_id: str) -> dict[str, int]:
        """What the bucket has of a task: sizes by name."""
        found = await self.s3.sizes()
        head = f"{task_id}/"
        return {k.removeprefix(head): size for k, size in found.items() if k.startswith(head)}


async def until(holds: Callable[[], bool]) -> None:
    """Return once it holds of what no event tells of."""
    with trio.fail_after(30):
        while not holds():
            await trio.sleep(0.01)


@asynccontextmanager
async def desk(folder: Path, clock: MockClock, s3: S3) -> AsyncIterator[Desk]:
    """With the uploader at work; it must not crash."""
    async with yard(folder, clock) as it, trio.open_nursery() as nursery:
        found = Desk(it, s3)
        await found.tree.start(nursery)
        yield found
        child = found.tree.child("uploads")
        assert (child.state, child.restarts) == (State.RUNNING, 0)
        await found.tree.stop()
        assert found.tree.error is None


# -- the database's disk refuses ----------------------------------------------------------


@pytest.mark.parametrize("away", [False, True], ids=["a bucket that takes it", "one that is away"])
async def test_a_disk_that_refuses_writes_puts_uploads_off_and_loses_none(
    tmp_path: Path, mock_clock: MockClock, s3: S3, away: bool
) -> None:
    async with desk(tmp_path, mock_clock, s3) as it:
        task_id, _ = await it.made("a.mp4", "b.mp4")
        connection = it.it.bench.database.connection
        connection.execute("PRAGMA query_only = ON")
        await it.go(**({"endpoint": f"http://127.0.0.1:{ports()}"} if away else {}))
        assert it.it.bench.store.failing is not None
        assert it.states(task_id) == {"a.mp4": "complete", "b.mp4": "complete"}
        rows = it.it.bench.rows("SELECT state, attempts FROM egress_uploads")
        assert rows == [("due", 0), ("due", 0)]
        connection.execute("PRAGMA query_only = OFF")
        await it.it.disk_recovered()
        await it.go()
        await it.uploaded(task_id, "a.mp4", "b.mp4")
        assert it.states(task_id) == {"a.mp4": "uploaded", "b.mp4": "uploaded"}
        assert await it.there(task_id) == {"a.mp4": 100, "b.mp4": 100}


async def test_a_large_file_is_not_begun_over_and_over_while_the_disk_refuses(
    tmp_path: Path, mock_clock: MockClock, s3: S3
) -> None:
    """Where the bucket's id of it cannot be kept, it waits like all others."""
    async with desk(tmp_path, mock_clock, s3) as it:
        task_id, _ = await it.made("a.mp4", size=PIECE + 1)
        connection = it.it.bench.database.connection
        connection.execute("PRAGMA query_only = ON")
        await it.go()
        connection.execute("PRAGMA query_only = OFF")
        await it.it.disk_recovered()
        await it.go()
        await it.uploaded(task_id, "a.mp4")
        assert await it.there(task_id) == {"a.mp4": PIECE + 1}


# -- settings that are wrong --------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"endpoint": "no address"}, "Invalid endpoint"),
        ({"region": "no region"}, "region_name"),
        ({"secret_key": ""}, "Partial credentials"),
        ({"bucket": "no bucket!"}, "Invalid bucket name"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_settings_that_are_wrong_are_told_and_can_be_corrected(
    tmp_path: Path,
    mock_clock: MockClock,
    s3: S3,
    capsys: pytest.CaptureFixture[str],
    wrong: dict[str, str],
    words: str,
) -> None:
    async with desk(tmp_path, mock_clock, s3) as it:
        task_id, _ = await it.made("a.mp4")
        await it.go(**wrong)
        logged = capsys.readouterr().out
        assert words in logged
        assert s3.settings["secret_key"] not in logged
        assert it.states(task_id) == {"a.mp4": "complete"}
        # What was tried and did not work is tried again after a while.
        mock_clock.jump(AGAIN.cap)
        await it.go()
        await it.uploaded(task_id, "a.mp4")


# -- local copies that are not kept ---------------------------------------------------------


async def test_that_a_file_is_elsewhere_is_said_before_its_local_copy_goes(
    tmp_path: Path, mock_clock: MockClock, s3: S3, footage: Footage
) -> None:
    async with desk(tmp_path, mock_clock, s3) as it:
        task_id, folder = await it.recorded(footage)
        count = sum(1 for path in folder.files.rglob("*.ts"))
        seen: dict[str, tuple[str, bool]] = {}
        publish = it.it.bench.on_publish

        def look(events: list[Event]) -> None:
            """It is kept and told of, and nobody who waits for it has gone on."""
            for event in events:
                if event.type == UPLOADED:
                    name = msgspec.json.decode(event.data)["file"]
                    seen[name] = (it.states(task_id)[name], (folder.files / name).exists())
            publish(events)

        it.it.bench.on_publish = look
        await it.go(keep_local=False)
        await it.uploaded(task_id, "x.m3u8", "x.mp4")
        assert seen == {"x.m3u8": ("remote", True), "x.mp4": ("remote", True)}
        await until(lambda: list(folder.files.iterdir()) == [])
        there = await it.there(task_id)
        assert len(there) == count + 2


async def test_what_a_kill_left_of_local_copies_goes_with_the_next_start(
    tmp_path: Path, mock_clock: MockClock, s3: S3, footage: Footage
) -> None:
    """All of them, and nothing else: neither what is only here, nor what is kept."""
    async with yard(tmp_path, mock_clock) as before:
        it = Desk(before, s3)
        gone = [await it.made(f"{n}.mp4") for n in range(2 * AT_ONCE + 1)]
        gone.append(await it.recorded(footage))
        kept, due = await it.made("kept.mp4"), await it.made("due.mp4")
        for task_id, folder in [*gone, kept]:
            keep = (task_id, folder) == kept
            for upload in await before.bench.store.read(_of, task_id):
                await before.bench.store.write(upload_records.done, upload, "s3://x", keep)
    async with desk(tmp_path, mock_clock, s3) as it:
        # It looks at the settings when it is through with that.
        await until(lambda: it.looks > 0)
        for task_id, folder in gone:
            assert set(it.states(task_id).values()) == {"remote"}
            assert list(folder.files.iterdir()) == []
        for task_id, folder in (kept, due):
            assert [path.name for path in folder.files.iterdir()] == list(it.states(task_id))
        assert list(it.states(kept[0]).values()) == ["uploaded"]
        await it.go()
        await it.uploaded(due[0], "due.mp4")


def _of(db: Reading, task_id: str) -> list[upload_records.Upload]:
    """Uploads of a task, in the order in which they go."""
    rows = db.all(
        "SELECT task_id, name, file, upload_id, attempts FROM egress_uploads WHERE task_id = ?"
        " ORDER BY number",
        (task_id,),
    )
    return [upload_records.Upload(*row) for row in rows]


async def test_local_copies_that_cannot_be_deleted_hold_nothing_up(
    tmp_path: Path, mock_clock: MockClock, s3: S3
) -> None:
    """Their disk refuses: they go with a start after it takes writes again."""
    with small_disk(tmp_path, "4m") as disk:
        (tmp_path / "egress").symlink_to(disk.root)
        async with desk(tmp_path, mock_clock, s3) as it:
            one, folder = await it.made("a.mp4")
            two, _ = await it.made("b.mp4")
            disk.refuse()
            await it.go(keep_local=False)
            await it.uploaded(one, "a.mp4")
            await it.uploaded(two, "b.mp4")
            assert (folder.files / "a.mp4").exists()
        async with desk(tmp_path, mock_clock, s3) as it:
            await until(lambda: it.looks > 0)
            assert (folder.files / "a.mp4").exists()
        disk.allow()
        async with desk(tmp_path, mock_clock, s3) as it:
            await until(lambda: it.looks > 0)
            assert not (folder.files / "a.mp4").exists()


# -- retention ------------------------------------------------------------------------------


async def test_a_task_is_not_forgotten_before_its_files_are_uploaded(
    tmp_path: Path, mock_clock: MockClock, s3: S3
) -> None:
    """Nor while they are given up, and somebody may want them tried again."""
    async with desk(tmp_path, mock_clock, s3) as it:
        store = it.it.bench.store
        due, _ = await it.made("due.mp4")
        given_up, _ = await it.made("given_up.mp4")
        (upload,) = await store.read(_of, given_up)
        await store.write(upload_records.failed, upload, "it is away", 0.0, 1)
        await it.made()  # it has nothing to be uploaded

        async def left() -> set[str]:
            await store.write(records.forget_old, LATER, 100)
            return {task for (task,) in it.it.bench.rows("SELECT task_id FROM egress_tasks")}

        assert await left() == {due, given_up}
        await it.go()
        await it.uploaded(due, "due.mp4")
        assert await left() == {given_up}
        assert await store.write(upload_records.again, given_up) == 1
        await it.go()
        await it.uploaded(given_up, "given_up.mp4")
        assert await left() == set()
        for table in ("egress_files", "egress_uploads", "leases"):
            assert it.it.bench.rows(f"SELECT * FROM {table}") == []
