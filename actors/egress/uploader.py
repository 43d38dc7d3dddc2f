"""Uploads what tasks have made, a few objects at a time, for as long as it takes.

The rows say what is due: a restart goes on with them. A bucket that is away is tried again with
backoff; what was given up waits for somebody to want it again.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from actors.egress import upload_records as rows
from actors.egress.bucket import Bucket, BucketError
from actors.egress.tracks import Folder, Track
from actors.egress.upload_records import Upload
from actors.lease import Clock
from config.model import Upload as Settings
from supervisor.backoff import Backoff
from supervisor.errors import Rejected
from supervisor.log import logger
from supervisor.service import Context, Service
from supervisor.store import Store

AT_ONCE = 4
MOST = 20
AGAIN = Backoff(first=2.0, cap=300.0, healthy_after=60.0)
# The longest between two looks, in seconds: the clock may have been set.
LOOK_EVERY = 30.0
WAITING = 5.0


class Poke:
    """Wakes the uploader: there is something new."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def __call__(self) -> None:
        """Look again."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Return when poked, or after a time."""
        with trio.move_on_after(seconds):
            await self._event.wait()
        self._event = trio.Event()


class Uploader(Service):
    """`settings` gives the bucket in force, or None; `folder` is the state folder."""

    def __init__(
        self,
        store: Store,
        settings: Callable[[], Settings | None],
        folder: Path,
        clock: Clock,
        poke: Poke,
        given_up: Callable[[int], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._folder = folder
        self._clock = clock
        self._poke = poke
        self._given_up = given_up
        self._refused = False
        self._bucket: tuple[Settings, Bucket] | None = None
        self._limit = trio.CapacityLimiter(AT_ONCE)

    async def run(self, context: Context) -> None:
        """See Service.run."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_on)
            context.ready()
            await context.stopped()
            nursery.cancel_scope.cancel()

    async def _keep_on(self) -> None:
        try:
            await self._remove_left_over()
        except Rejected as error:
            logger.warning("left_over_files_kept", error=str(error))
        while True:
            pause = LOOK_EVERY
            settings = self._settings()
            if settings is not None:
                try:
                    pause = await self._round(settings)
                except (Rejected, BucketError) as error:
                    logger.warning("uploads_put_off", error=str(error))
            await self._poke.wait(pause)

    async def _remove_left_over(self) -> None:
        """Local copies that were said to be gone when the appliance was killed."""
        number = 0
        while True:
            found = await self._store.read(rows.elsewhere, number, AT_ONCE)
            for number, task_id, file, names in found:  # noqa: B007 - the last one is gone on from
                await self._remove(task_id, file, names)
            if len(found) < AT_ONCE:
                return

    async def _round(self, settings: Settings) -> float:
        """Try what is due; how long until there is something again."""
        if self._bucket is None or self._bucket[0] != settings:
            self._bucket = (settings, await trio.to_thread.run_sync(Bucket, settings))
        bucket = self._bucket[1]
        self._refused = False
        while not self._refused:
            due = await self._store.read(rows.due, self._clock.now(), AT_ONCE * 4)
            if not due:
                break
            async with trio.open_nursery() as nursery:
                for upload in due:
                    nursery.start_soon(self._one, upload, bucket, settings)
        following, given_up = await self._store.read(rows.left)
        self._given_up(given_up)
        if following is None:
            return LOOK_EVERY
        # What is past and was not due waits for others: nothing here makes it due sooner.
        pause = following - self._clock.now()
        return min(pause, LOOK_EVERY) if pause > 0 else WAITING

    async def _one(self, upload: Upload, bucket: Bucket, settings: Settings) -> None:
        folder = Folder(self._folder / "egress" / upload.task_id)
        path = folder.files / upload.name
        key = bucket.key(upload.task_id, upload.name)

        def begun(upload_id: str) -> None:
            trio.from_thread.run(self._store.write, rows.begun, upload, upload_id)

        try:
            # The thread is not waited for when the appliance stops: the bucket's state is looked at
            # again at the next start.
            await trio.to_thread.run_sync(
                bucket.put, path, key, upload.upload_id, begun,
                abandon_on_cancel=True, limiter=self._limit,
            )  # fmt: skip
        except (BucketError, OSError) as error:
            jitter = random.Random()  # noqa: S311 - jitter
            again = self._clock.now() + AGAIN.delay(upload.attempts + 1, jitter)
            logger.warning("upload_failed", task_id=upload.task_id, error=str(error)[:300])
            await self._keep(rows.failed, upload, _short(error), again, MOST)
            return
        except Rejected as error:
            # The id of an upload in pieces could not be kept: it begins anew, and not at once.
            self._refused = True
            logger.warning("upload_put_off", task_id=upload.task_id, error=str(error))
            return
        location = bucket.location(upload.task_id, upload.name)
        names = await self._keep(rows.done, upload, location, settings.keep_local)
        if names:
            await self._remove(upload.task_id, upload.file, names)

    async def _remove(self, task_id: str, file: str, names: list[str]) -> None:
        """A local copy that is said to be gone. What is left of it goes with the next start."""
        folder = Folder(self._folder / "egress" / task_id)
        try:
            await trio.to_thread.run_sync(_remove, folder, file, names)
        except OSError as error:
            logger.warning("local_copy_left", task_id=task_id, file=file, error=str(error))

    async def _keep(self, fn: Callable[..., Any], *args: Any) -> Any:
        """A write; where the disk refuses, the object is only tried again later."""
        try:
            return await self._store.write(fn, *args)
        except Rejected as error:
            self._refused = True
            logger.warning("upload_not_kept", error=str(error))
            return None


def _short(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or error}"
    return str(error)


def _remove(folder: Folder, file: str, names: list[str]) -> None:
    for name in names:
        (folder.files / name).unlink(missing_ok=True)
    if file.endswith(".m3u8"):
        segments = Track(file.removesuffix(".m3u8"), ()).segments
        shutil.rmtree(folder.files / segments, ignore_errors=True)
