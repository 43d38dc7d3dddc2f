"""The worker of one task: claims have given it a lease, it records part after part, and finishes.

It shows its lease with everything it writes. When the lease is lost it stops at once and writes
nothing more: another may be at work.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from typing import Any, assert_never

import trio

from actors import lease as leases
from actors.egress import made_records, records
from actors.egress import upload_records as rows
from actors.egress.allow import Allowed
from actors.egress.finish import Made, finish, salvage, tidy
from actors.egress.job import (
    Objects,
    end_with_uploads,
    job_of,
    longest,
    objects_of,
    pictures,
    tracks_on_disk,
    verdict,
)
from actors.egress.machine import Input, State
from actors.egress.made_records import File
from actors.egress.means import End, Job, Means
from actors.egress.messages import (
    EndRecording,
    GetWorking,
    ShowLarge,
    WorkerEnded,
    WorkerMessage,
    Working,
)
from actors.egress.noted import Noted
from actors.egress.progress import Progress
from actors.egress.recorder import Part
from actors.egress.records import Task
from actors.egress.request import understand
from actors.egress.services import Services
from actors.egress.tracks import Folder, Track
from actors.lease import Lease, LeaseLost
from supervisor.actor import Actor
from supervisor.backoff import Backoff
from supervisor.errors import ActorDown, MailboxFull, Rejected
from supervisor.log import logger
from supervisor.spec import Cause, StopReason

AGAIN = Backoff(first=0.3, cap=5.0, healthy_after=20.0)
# Parts in a row that broke before they had recorded for long: then the task has failed.
MOST_BROKEN = 5
# A part that has recorded for so long makes up for what was lost before, in seconds.
HEALTHY = 60.0
# Events of one task that a source or a page can cause, in ten seconds; more are counted only.
EVENTS = 30
EVENTS_TIME = 10.0
# What a disk that refuses gets to take the result after all, in seconds.
WRITE_AGAIN = 2.0


class TaskWorker(Actor[WorkerMessage]):
    """Temporary: when it crashes, the queue puts its task back."""

    def __init__(self, task: Task, lease: Lease, services: Services) -> None:
        self._task = task
        self._lease = lease
        self._services = services
        self._folder: Folder = services.task_folder(task.task_id)
        self._stopping = trio.Event()
        self._leaving = False
        self._work_done = trio.Event()
        self._part: Part | None = None
        self._spotlight = task.spotlight
        self._ended_in = task.state
        self._told = 0
        # How many segments of a track's part are queued for the bucket.
        self._uploading: dict[tuple[str, int], int] = {}
        self._told_since = 0.0
        if task.state is State.STOPPING:
            self._stopping.set()

    @property
    def groups(self) -> set[int]:
        """The process groups that work for it now."""
        return self._part.groups if self._part is not None else set()

    @property
    def written(self) -> int:
        """Bytes that the present part has written."""
        return self._part.progress.bytes if self._part is not None else 0

    async def on_start(self) -> None:
        """See Actor.on_start."""
        self.spawn(self._work)
        self.spawn(self._keep_lease)

    async def handle(self, message: WorkerMessage) -> object:
        """See Actor.handle."""
        match message:
            case EndRecording():
                self._stopping.set()
            case ShowLarge(user):
                self._spotlight = user
                if self._part is not None:
                    await self._part.show(user)
            case GetWorking():
                part = self._part
                progress = part.progress if part is not None else Progress()
                away = part.away if part is not None else []
                growing = await trio.to_thread.run_sync(self._growing)
                return Working(progress, away, growing)
            case _:
                assert_never(message)
        return None

    async def on_stop(self, reason: StopReason) -> None:
        """The appliance stops: what is recorded is kept, and goes on with the next start."""
        if reason.cause is not Cause.NORMAL:
            self._leaving = True
            self._stopping.set()
            await self._work_done.wait()

    # -- the lease ----------------------------------------------------------------

    async def _keep_lease(self) -> None:
        settings = self._services.settings()
        while True:
            await trio.sleep(settings.renew)
            try:
                await self._write(leases.renew, self._lease, self._now(), settings.lease)
            except LeaseLost:
                self._give_up()
                return
            except Rejected as error:
                # A disk that refuses now may take it next time; the lease is for three tries.
                logger.warning("lease_not_renewed", actor=self.context.path, error=str(error))

    def _give_up(self) -> None:
        logger.error("lease_lost", actor=self.context.path, fence=self._lease.fence)
        self.context.nursery.cancel_scope.cancel()

    def _now(self) -> float:
        return self._services.clock.now()

    async def _write(self, fn: Callable[..., Any], *args: Any) -> Any:
        return await self._services.store.write(fn, *args)

    # -- the work -----------------------------------------------------------------

    async def _work(self) -> None:
        try:
            await self._record_and_finish()
        except LeaseLost:
            self._give_up()
            return
        finally:
            self._work_done.set()
        if not self._leaving:
            message = WorkerEnded(self._task.task_id, self._lease.fence, self._ended_in.value)
            try:
                self._services.queue.tell(message)
            except (ActorDown, MailboxFull) as error:
                # It finds out by itself at its next look.
                logger.info("end_not_told", actor=self.context.path, error=str(error))
            self.stop_soon()

    async def _record_and_finish(self) -> None:
        task = self._task
        try:
            job = job_of(self._task, self._services, self._folder)
        except Rejected as error:
            # What was possible when it was claimed before may be so no more: what is there is kept.
            there = tracks_on_disk(self._folder)
            await self._mend(there)
            await self._conclude(Input.FAIL, error.code, error.message, there)
            return
        # What ended a task that only has to be finished (records.lost); else somebody asked.
        end = End("broken", task.reason) if task.reason else End("asked")
        if not self._stopping.is_set():
            end = await self._record(job)
        elif not self._leaving:
            await self._mend(job.tracks)
        if self._leaving:
            await self._write(leases.release, self._lease)
            return
        what, reason, message = verdict(end)
        logger.info("egress_recorded", actor=self.context.path, task_id=task.task_id, end=end.how)
        await self._conclude(what, reason, message, list(job.tracks))

    async def _record(self, job: Job) -> End:
        """Part after part, until there is a reason to end that another part would not mend."""
        failures, rng = 0, random.Random()  # noqa: S311 - jitter
        while True:
            end, seconds = await self._one_part(job)
            if end.how != "broken" or self._stopping.is_set():
                return end
            failures = 1 if seconds >= AGAIN.healthy_after else failures + 1
            logger.warning(
                "recorder_broke", actor=self.context.path, reason=end.reason, failures=failures
            )
            self._report("recorder_broke", {"reason": end.reason, "failures": failures})
            if failures >= MOST_BROKEN:
                return end
            with trio.move_on_after(AGAIN.delay(failures, rng)):
                await self._stopping.wait()
            if self._stopping.is_set():
                return End("asked")

    async def _one_part(self, job: Job) -> tuple[End, float]:
        before = await self._mend(job.tracks)
        recorded = job.folder.recorded
        offsets = {t.name: await trio.to_thread.run_sync(recorded, t, before) for t in job.tracks}
        most = job.wanted.max_duration
        done = max(offsets.values(), default=0.0)
        if most is not None and before and not job.snapshots and done >= most - 0.2:
            return End("over", "max_duration"), 0.0
        try:
            number = int(await self._write(made_records.begin_part, self._lease))
        except LeaseLost:
            raise
        except Rejected as error:
            return End("broken", error.message), 0.0
        services = self._services
        allowed = Allowed(services.settings)
        means = Means(
            services.registry,
            self.context.path,
            allowed.url,
            allowed.reaches,
            Noted(services.registry, services.store, self.context.path),
            services.tail,
            self._report,
            self._stopping,
        )
        part = self._part = Part(job, means, number, offsets, self._spotlight)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell_progress, part)
                end = await part.run()
                nursery.cancel_scope.cancel()
        finally:
            self._part = None
        await trio.to_thread.run_sync(shutil.rmtree, job.folder.run, True)
        for track in job.tracks:
            place = job.folder.part(track, number)
            await salvage(place, self._services.registry, self.context.path)
        seconds = await trio.to_thread.run_sync(longest, job.folder, job.tracks, number)
        seconds = seconds or part.progress.seconds
        if end.how == "over" and end.reason == "idle" and not part.seen:
            end = End("failed", "no source has sent anything")
        await self._end_part(number, seconds, end)
        return end, seconds

    async def _mend(self, found: Sequence[Track]) -> list[int]:
        """Put in order what workers before this one left of its tracks; the parts' numbers."""
        folder, task = self._folder, self._task
        # It holds the room that the playlists need where the disk is full.
        await trio.to_thread.run_sync(shutil.rmtree, folder.run, True)
        earlier = await self._services.store.read(made_records.parts, task.task_id)
        for track in found:
            for part in earlier:
                place = folder.part(track, part.part)
                await salvage(place, self._services.registry, self.context.path)
        for cut_off in (p.part for p in earlier if p.ended is None):
            seconds = await trio.to_thread.run_sync(longest, folder, found, cut_off)
            await self._end_part(cut_off, seconds, End("killed"))
        return [p.part for p in earlier]

    async def _end_part(self, number: int, seconds: float, end: End) -> None:
        reason = end.reason or end.how
        try:
            await self._write(made_records.end_part, self._lease, number, seconds, reason)
        except LeaseLost:
            raise
        except Rejected as error:
            # The part itself is on the disk; the row is only told of how it ended.
            logger.warning("part_not_noted", actor=self.context.path, error=str(error))

    async def _conclude(self, what: Input, reason: str, message: str, found: list[Track]) -> None:
        """Make the files, and end the task: kept at the latest when the disk takes writes again."""
        made: list[Made] = []
        over: list[Track] = []
        for track in found:
            files, problems = await self._files_of(track)
            made += files
            if problems:
                message = "; ".join([message, *problems] if message else problems)
                what, reason = Input.FAIL, reason if what is Input.FAIL else "not_finished"
            elif not any(file.format == "hls" for file in files):
                over.append(track)
        objects: Objects = ([], [])
        if self._services.settings().upload is not None:
            objects = await trio.to_thread.run_sync(objects_of, self._folder, made)
        while True:
            try:
                task: Task = await self._write(
                    end_with_uploads, self._lease, what, reason, message, made, objects
                )
            except LeaseLost:
                raise
            except Rejected as error:
                logger.warning("end_not_kept", actor=self.context.path, error=str(error))
                if self._leaving:
                    return
                await trio.sleep(WRITE_AGAIN)
            else:
                self._ended_in = task.state
                self._services.uploads()
                for track in over:
                    await trio.to_thread.run_sync(tidy, self._folder, track)
                return

    async def _files_of(self, track: Track) -> tuple[list[Made], list[str]]:
        task, services = self._task, self._services
        numbers = [p.part for p in await services.store.read(made_records.parts, task.task_id)]
        _kind, wanted = understand(task.cmd, task.payload)
        if task.cmd == "snapshot":
            return await trio.to_thread.run_sync(pictures, self._folder, track), []
        owner = self.context.path
        return await finish(self._folder, track, numbers, wanted.formats, services.registry, owner)

    # -- telling ------------------------------------------------------------------

    def _report(self, kind: str, data: dict[str, object]) -> None:
        """An event of this task; a source that comes and goes all the time fills no log."""
        now = trio.current_time()
        if now - self._told_since > EVENTS_TIME:
            if self._told > EVENTS:
                left_out: dict[str, object] = {"count": self._told - EVENTS}
                self._submit([("events_left_out", left_out)])
            self._told, self._told_since = 0, now
        self._told += 1
        if self._told <= EVENTS:
            self._submit([(kind, data)])

    def _submit(self, told: list[tuple[str, dict[str, object]]]) -> None:
        self._services.store.submit(records.note, self._task.task_id, told)

    async def _tell_progress(self, part: Part) -> None:
        await part.begun.wait()
        self._submit([("recording", {"part": part.number})])
        healthy = trio.current_time() + HEALTHY
        while True:
            await trio.sleep(self._services.settings().progress_every)
            if not await self._upload_segments(part):
                return
            progress = part.progress
            data: dict[str, object] = {
                name: getattr(progress, name) for name in progress.__struct_fields__
            }
            self._submit([("progress", {**data, "away": part.away})])
            if trio.current_time() > healthy and self._task.retry_count:
                if not await self._note(records.healthy, self._lease):
                    return
                self._task.retry_count = 0

    async def _note(self, fn: Callable[..., Any], *args: Any) -> bool:
        """A write that a recording does not depend on; False when the lease is lost."""
        try:
            await self._write(fn, *args)
        except LeaseLost:
            self._give_up()
            return False
        except Rejected as error:
            logger.warning("not_noted", actor=self.context.path, error=str(error))
        return True

    async def _upload_segments(self, part: Part) -> bool:
        """What is whole goes to the bucket while the rest is recorded. As `_note`."""
        if self._services.settings().upload is None or "hls" not in part.formats:
            return True
        objects = []
        for track, _, _ in part.recorded():
            parts = self._folder.parts
            found = (await trio.to_thread.run_sync(parts, track, [part.number]))[0]
            known = self._uploading.get((track.name, part.number), 0)
            self._uploading[track.name, part.number] = len(found)
            objects += [
                (s.path.relative_to(self._folder.files).as_posix(), f"{track.name}.m3u8")
                for s in found[known:]
            ]
        if objects and not await self._note(rows.enqueue, self._lease, objects, 0):
            return False
        self._services.uploads()
        return True

    def _growing(self) -> list[File]:
        """The files of what is being recorded, as far as they are."""
        part = self._part
        if part is None:
            return []
        if self._task.cmd == "snapshot":
            made = [m for track, _, _ in part.recorded() for m in pictures(self._folder, track)]
            return [File(m.name, "jpg", m.user, m.bytes, 0.0, "complete", "local") for m in made]
        found = []
        for track, progress, offset in part.recorded():
            user = track.users[0] if len(track.users) == 1 else ""
            seconds = offset + progress.seconds
            name = f"{track.name}.m3u8"
            found.append(File(name, "hls", user, progress.bytes, seconds, "growing", "local"))
        return found
