"""One part of a task: every track's sources, mixer and encoder, from the start to the end.

What a source does is no reason to end a part (feed.py). A part ends because somebody wants it to,
because there is nothing more to record, or because an encoder, a mixer or the page broke; then the
worker begins another part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from actors.egress import encode, layout
from actors.egress.feed import Feed, Tail
from actors.egress.layout import Cell
from actors.egress.mix import Mix
from actors.egress.page import Page, PageEvent, PageLost, PageRequest
from actors.egress.progress import Progress, ProgressReader, add, sized
from actors.egress.push import push
from actors.egress.request import Kind, Wanted
from actors.egress.sources import Origin, Shape, card_arguments
from actors.egress.tracks import Folder, Size, Track
from supervisor.log import logger
from supervisor.orphans import Registry
from supervisor.process import Command, Process

# An encoder gets so long to write what it has when its input ends, in seconds.
FLUSH = 10.0
# One that ends by itself so much before its time has lost its input, in seconds.
EARLY = 1.0
# A part that began: the mixer waits for a first picture, and Chromium for the page, before it.
BEGIN = 45.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says; times in seconds."""

    gone_after: float
    stalled_after: float
    idle_timeout: float


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be recorded, as it was asked for, with its sources."""

    task_id: str
    kind: Kind
    wanted: Wanted
    origins: tuple[Origin, ...]
    tracks: tuple[Track, ...]
    folder: Folder
    rules: Rules

    @property
    def fps(self) -> int:
        """Of the mixer; snapshots are chosen from its frames."""
        if self.kind is Kind.SNAPSHOT or self.wanted.interval_in_ms is not None:
            return encode.SNAPSHOT_RATE
        return self.wanted.video.frame_rate

    @property
    def snapshots(self) -> bool:
        """Single pictures instead of a recording?"""
        return self.wanted.interval_in_ms is not None


@dataclass(frozen=True, slots=True)
class End:
    """Why a part ended. `how`: `asked`, `over`, `broken` or `disk_full`."""

    how: str
    reason: str = ""


@dataclass(slots=True)
class Means:
    """What a part is made with. `report(kind, data)` is for events, `stop` ends it in order."""

    registry: Registry
    owner: str
    allowed: Callable[[str], bool]
    tail: Tail
    report: Callable[[str, dict[str, object]], None]
    stop: trio.Event = field(default_factory=trio.Event)


class Part:
    """One part. `progress` and `groups` are looked at while it runs."""

    def __init__(
        self, job: Job, means: Means, number: int, offsets: Mapping[str, float], spotlight: str
    ) -> None:
        self._job = job
        self._means = means
        self.number = number
        self._offsets = offsets
        self.spotlight = spotlight
        self._progress: dict[str, Progress] = {}
        self._sizes = {t.name: Size(job.folder.part(t, number)) for t in job.tracks}
        self._mixes: list[tuple[Track, Mix]] = []
        self._feeds: list[Feed] = []
        self._processes: list[Process] = []
        self._page: Page | None = None
        self._away: set[str] = set()
        self._cards: set[tuple[str, str]] = set()
        self._card_wanted = trio.Event()
        self._end: End | None = None
        self._ended = trio.Event()
        self._moved = math.inf
        # An encoder that hangs takes nothing in and writes nothing more: it is not waited for.
        self._hung = False
        self._pushing = 0
        self._pushed = trio.Event()
        # Set when the first frame has been encoded.
        self.begun = trio.Event()
        # Has any source ever sent something?
        self.seen = False
        self.alone_since = math.inf

    # -- what it looks like from outside ------------------------------------------

    @property
    def progress(self) -> Progress:
        """Of all tracks together."""
        found = list(self._progress.values())
        total = found[0] if found else Progress()
        for other in found[1:]:
            total = add(total, other)
        return total

    @property
    def formats(self) -> list[str]:
        """What is to become of it."""
        return self._job.wanted.formats

    def recorded(self) -> list[tuple[Track, Progress, float]]:
        """Of each track: how far its encoder is, and the seconds of the parts before."""
        return [
            (track, self._progress.get(track.name, Progress()), self._offsets.get(track.name, 0.0))
            for track in self._job.tracks
        ]

    @property
    def away(self) -> list[str]:
        """Users that are gone just now."""
        return sorted(self._away)

    @property
    def groups(self) -> set[int]:
        """The process groups that work for it."""
        processes = [*self._processes, *(mix.process for _, mix in self._mixes)]
        processes += [feed.process for feed in self._feeds if feed.process is not None]
        found = {p.pid for p in processes if p.pid and p.exit is None}
        return found | set(self._page.groups if self._page is not None else ())

    async def show(self, user: str) -> None:
        """Make another user the large one, from the next frame on."""
        self.spotlight = user
        for track, mix in self._mixes:
            await mix.cells(self._cells(track))

    # -- life -----------------------------------------------------------------

    async def run(self) -> End:
        """Record until there is a reason to end; everything is written and gone then."""
        await trio.to_thread.run_sync(self._prepare)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_when_asked)
                nursery.start_soon(self._watch)
                async with trio.open_nursery() as working:
                    for track in self._job.tracks:
                        working.start_soon(self._track, track)
                nursery.cancel_scope.cancel()
        except* OSError as group:
            # What the disk refuses to the tracks' folders and pipes.
            self._finish(_of_disk(group.exceptions[0]))
        return self._end or End("broken", "it ended without a reason")

    def _prepare(self) -> None:
        job = self._job
        job.folder.run.mkdir(parents=True, exist_ok=True)
        for track in job.tracks:
            place = job.folder.part(track, self.number)
            if job.snapshots:
                place = (job.folder.files / track.name).parent
            place.mkdir(parents=True, exist_ok=True)

    def _finish(self, end: End) -> None:
        """The first reason counts."""
        if self._end is None:
            self._end = end
            self._ended.set()

    async def _end_when_asked(self) -> None:
        await self._means.stop.wait()
        self._finish(End("asked"))

    async def _watch(self) -> None:
        """An encoder that does not get on, a part that does not begin, a channel nobody is in."""
        rules = self._job.rules
        started = trio.current_time()
        while True:
            await trio.sleep(0.5)
            now = trio.current_time()
            if not self.begun.is_set() and now - started > BEGIN:
                self._finish(End("broken", f"not begun within {BEGIN:g} s"))
            if now - self._moved > rules.stalled_after:
                self._hung = True
                self._finish(End("broken", f"the encoder stalled for {rules.stalled_after:g} s"))
            if now - self.alone_since > rules.idle_timeout:
                self._finish(End("over", "idle"))

    def _take_progress(self, track: Track, progress: Progress) -> None:
        before = self._progress.get(track.name, Progress())
        written = self._sizes[track.name].look()
        self._progress[track.name] = sized(progress, written, before)
        if progress.frames > before.frames or progress.seconds > before.seconds:
            # Snapshots may be far between: there, the input is what must go on.
            self._moved = math.inf if self._job.snapshots else trio.current_time()
            self.begun.set()

    async def _track(self, track: Track) -> None:
        if self._job.kind is Kind.PAGE:
            await self._page_track(track)
        else:
            await self._mixed_track(track)

    # -- a channel ----------------------------------------------------------------

    def _cells(self, track: Track) -> list[Cell]:
        wanted, users = self._job.wanted, track.users
        width, height = wanted.video.width, wanted.video.height
        if len(users) > 1 and wanted.layout == "spotlight":
            return layout.spotlight(users, self.spotlight or users[0], width, height)
        if not wanted.apart and wanted.layout == "customized":
            return [
                Cell(r.user, *(layout.even(n) for n in (r.x, r.y, r.width, r.height)))
                for r in wanted.regions
                if r.user in users
            ]
        return layout.grid(users, width, height)

    async def _mixed_track(self, track: Track) -> None:
        job, means = self._job, self._means
        run = job.folder.run / f"{job.tracks.index(track)}"
        run.mkdir(parents=True, exist_ok=True)
        cells = self._cells(track)
        mix = Mix(
            run, job.wanted, job.fps, cells, job.rules.gone_after,
            means.registry, means.owner, self._mixer_said, sound=not job.snapshots,
        )  # fmt: skip
        self._mixes.append((track, mix))
        inputs = encode.mixed_input(mix.video, mix.audio, job.wanted, job.fps)
        async with trio.open_nursery() as nursery:
            await nursery.start(mix.run)
            encoder = self._encoder(track, inputs, {})
            await nursery.start(encoder.run)
            nursery.start_soon(self._broken_when_ended, "the mixer", mix.process)
            nursery.start_soon(self._over_when_ended, track, encoder)
            async with trio.open_nursery() as sources:
                feeds = self._start_feeds(track, mix, cells, run, sources)
                sources.start_soon(self._over_when_all, feeds)
                sources.start_soon(self._draw_cards, track, mix, cells, run)
                if job.wanted.rtmp_dst:
                    sources.start_soon(self._push, track)
                await self._ended.wait()
                if self._hung:
                    await encoder.kill()
                await mix.end()
                await self._flush(encoder)
                await self._all_pushed()
                sources.cancel_scope.cancel()
            nursery.cancel_scope.cancel()

    def _start_feeds(
        self, track: Track, mix: Mix, cells: Sequence[Cell], run: Path, nursery: trio.Nursery
    ) -> list[Feed]:
        job, means = self._job, self._means
        feeds = []
        same = job.wanted.layout == "spotlight"
        for number, origin in enumerate(o for o in job.origins if o.user in track.users):
            own = [c for c in cells if same or c.user == origin.user]
            if not own:
                continue
            shape = Shape(
                tuple(layout.sizes(own)), job.fps, job.wanted.audio.sample_rate,
                job.wanted.audio.channels, origin.user if job.wanted.names else "",
            )  # fmt: skip
            feed = Feed(
                origin, shape, run, mix, means.registry, means.owner, number,
                means.tail, self._feed_said, sound=not job.snapshots,
            )  # fmt: skip
            feeds.append(feed)
            nursery.start_soon(feed.run)
        self._feeds += feeds
        return feeds

    async def _over_when_all(self, feeds: Sequence[Feed]) -> None:
        for feed in feeds:
            await feed.over.wait()
        # What the last one sent is still in the mixer.
        await trio.sleep(self._job.rules.gone_after)
        self._finish(End("over", "source_ended"))

    async def _draw_cards(self, track: Track, mix: Mix, cells: Sequence[Cell], run: Path) -> None:
        """Draw the cards that are needed, when they are: most recordings never need one."""
        same = self._job.wanted.layout == "spotlight"
        drawn: set[tuple[str, str]] = set()
        while True:
            due = sorted(
                card for card in self._cards if card[1] in track.users and card not in drawn
            )
            for kind, user in due:
                drawn.add((kind, user))
                wanted = layout.sizes([c for c in cells if same or c.user == user])
                text = f"{user} is gone" if kind == "gone" else user
                name = f"{kind}-{track.users.index(user)}"
                arguments, paths = card_arguments(text, wanted, run, name)
                process = Process(Command(arguments, owner=self._means.owner), self._means.registry)
                ended = await process.run()
                if ended.status != 0:
                    logger.warning("no_card", actor=self._means.owner, lines=process.last_lines(2))
                    continue
                for size, path in zip(wanted, paths, strict=True):
                    await mix.card(kind, user, size, path)
            if not due:
                await self._card_wanted.wait()
                self._card_wanted = trio.Event()

    def _want_card(self, kind: str, user: str) -> None:
        self._cards.add((kind, user))
        self._card_wanted.set()

    def _feed_said(self, kind: str, data: dict[str, object]) -> None:
        if kind == "source_has_no_picture":
            self._want_card("sound", str(data["user"]))
        self._means.report(kind, data)

    def _mixer_said(self, what: dict[str, Any]) -> None:
        user = what.get("user", "")
        match what.get("event"):
            case "gone":
                self._away.add(user)
                self._want_card("gone", user)
                self._means.report("user_gone", {"user": user})
            case "back":
                self._away.discard(user)
                self._means.report("user_back", {"user": user})
            case "here":
                self.seen = True
            case "behind":
                self._means.report("behind", {"seconds": what.get("seconds")})
        everybody = {o.user for o in self._job.origins}
        alone = self._away >= everybody
        if not alone:
            self.alone_since = math.inf
        elif self.alone_since == math.inf:
            self.alone_since = trio.current_time()

    # -- a page -------------------------------------------------------------------

    async def _page_track(self, track: Track) -> None:
        job, means = self._job, self._means
        wanted = job.wanted
        request = PageRequest(
            wanted.page, wanted.video.width, wanted.video.height, wanted.web_gl, wanted.ready
        )
        run = job.folder.run / "page"
        run.mkdir(parents=True, exist_ok=True)

        def report(event: PageEvent) -> None:
            means.report(f"page_{event.kind}", dict(event.data))

        page = self._page = Page(request, run, means.registry, means.owner, means.allowed, report)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_ended_before_begin, nursery)
            ready = trio.Event()
            nursery.start_soon(self._run_page, page, ready)
            await ready.wait()
            if self._ended.is_set():
                nursery.cancel_scope.cancel()
                return
            self.seen = True
            inputs = [*page.video_input(job.fps), *page.audio_input]
            encoder = self._encoder(track, inputs, page.environment)
            await nursery.start(encoder.run)
            nursery.start_soon(self._over_when_ended, track, encoder)
            async with trio.open_nursery() as beside:
                if wanted.rtmp_dst:
                    beside.start_soon(self._push, track)
                await self._ended.wait()
                if self._hung:
                    await encoder.kill()
                await self._quit(encoder)
                await self._flush(encoder)
                await self._all_pushed()
                beside.cancel_scope.cancel()
            nursery.cancel_scope.cancel()

    async def _cancel_when_ended_before_begin(self, nursery: trio.Nursery) -> None:
        await self._ended.wait()
        if not any(p.pid for p in self._processes):
            nursery.cancel_scope.cancel()

    async def _run_page(self, page: Page, ready: trio.Event) -> None:
        over: list[str] = []

        async def begin(
            task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
        ) -> None:
            over.append(await page.run(task_status))

        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(begin)
                ready.set()
            self._finish(End("over", over[0] if over else "page_ended"))
        except* PageLost as group:
            self._finish(End("broken", str(group.exceptions[0])))
        finally:
            ready.set()

    # -- encoders -------------------------------------------------------------------

    def _encoder(self, track: Track, inputs: list[str], env: Mapping[str, str]) -> Process:
        job = self._job
        folder = job.folder.part(track, self.number)
        offset = self._offsets.get(track.name, 0.0)
        left = self._left(track)
        if job.snapshots:
            first = len(job.folder.pictures(track)) + 1
            stem = job.folder.files / track.name
            argv = encode.snapshot_arguments(inputs, job.wanted, stem, first, left)
        else:
            argv = encode.arguments(inputs, job.wanted, job.fps, folder, offset, left)
        reader = ProgressReader()

        def line(text: str) -> None:
            progress = reader.take(text)
            if progress is not None:
                self._take_progress(track, progress)

        command = Command(argv, env=env, owner=self._means.owner, stdin=True)
        process = Process(command, self._means.registry, line, self._encoder_said)
        self._processes.append(process)
        return process

    def _encoder_said(self, line: str) -> None:
        logger.debug("encoder_says", actor=self._means.owner, line=line)
        if "No space left on device" in line:
            self._finish(End("disk_full", "the disk is full"))

    def _left(self, track: Track) -> float | None:
        """Seconds that this part may have; None where there is no limit."""
        most = self._job.wanted.max_duration
        return None if most is None else most - self._offsets.get(track.name, 0.0)

    async def _over_when_ended(self, track: Track, encoder: Process) -> None:
        ended = await encoder.wait()
        left = self._left(track)
        came = self._progress.get(track.name, Progress()).seconds
        came += (self._job.wanted.interval_in_ms or 0) / 1000
        if ended.status == 0 and left is not None and came >= left - EARLY:
            self._finish(End("over", "max_duration"))
            return
        if ended.status == 0:
            # Its input ended: why, is known a moment later.
            await trio.sleep(EARLY)
        said = " | ".join(encoder.last_lines(2))
        self._finish(End("broken", f"the encoder {ended}: {said}"[:500]))

    async def _broken_when_ended(self, what: str, process: Process) -> None:
        ended = await process.wait()
        # The encoder's own end closes the mixer's pipe: its reason is the better one.
        await trio.sleep(0.2)
        said = " | ".join(process.last_lines(2))
        self._finish(End("broken", f"{what} {ended}: {said}"[:500]))

    async def _quit(self, encoder: Process) -> None:
        try:
            await encoder.send(b"q")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            logger.debug("encoder_gone", actor=self._means.owner)

    async def _flush(self, encoder: Process) -> None:
        with trio.move_on_after(FLUSH) as late:
            await encoder.wait()
        if late.cancelled_caught:
            logger.warning("encoder_killed", actor=self._means.owner, after=FLUSH)
            await encoder.kill()

    async def _push(self, track: Track) -> None:
        job = self._job
        playlist = job.folder.part(track, self.number) / encode.PLAYLIST
        self._pushing += 1
        try:
            await push(
                playlist, job.wanted.rtmp_dst, self._means.registry, self._means.owner,
                self._ended, self._means.report,
            )  # fmt: skip
        finally:
            self._pushing -= 1
            self._pushed.set()

    async def _all_pushed(self) -> None:
        """The end of what was recorded is on its way for a while longer (push.REST)."""
        while self._pushing:
            self._pushed = trio.Event()
            await self._pushed.wait()


def _of_disk(error: BaseException) -> End:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return End("disk_full" if "No space left" in text else "broken", text)
