"""The encoders of a part: started, watched, ended; and what is known of it from outside."""

from __future__ import annotations

import math
from collections.abc import Mapping

import trio

from actors.egress import encode
from actors.egress.feed import Feed
from actors.egress.means import End, Job, Means
from actors.egress.mix import Mix
from actors.egress.page import Page
from actors.egress.progress import Progress, ProgressReader, add, sized
from actors.egress.push import push
from actors.egress.tracks import Size, Track
from supervisor.log import logger
from supervisor.process import Command, Process

# An encoder gets so long to write what it has when its input ends, in seconds.
FLUSH = 10.0
# One that ends by itself so much before its time has lost its input, in seconds.
EARLY = 1.0
# Bytes that are kept free for what names the segments of a recording.
ROOM = 256 * 1024
# A part that began: the mixer waits for a first picture, and Chromium for the page, before it.
BEGIN = 45.0


class Encoding:
    """What all parts share. `progress` and `groups` are looked at while it runs."""

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
        self._pictures: dict[str, int] = {}
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

    # -- life -----------------------------------------------------------------

    def _prepare(self) -> None:
        job = self._job
        job.folder.run.mkdir(parents=True, exist_ok=True)
        # It goes with its folder when the part has ended: then a full disk takes the playlists.
        (job.folder.run / "room").write_bytes(bytes(ROOM))
        for track in job.tracks:
            place = job.folder.part(track, self.number)
            if job.snapshots:
                place = (job.folder.files / track.name).parent
                # Looked at here: there may be many thousands, and this is in a thread.
                self._pictures[track.name] = len(job.folder.pictures(track))
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
            # Snapshots may be far between.
            pause = (self._job.wanted.interval_in_ms or 0) / 1000
            self._moved = trio.current_time() + pause
            self.begun.set()

    # -- encoders -------------------------------------------------------------------

    def _encoder(self, track: Track, inputs: list[str], env: Mapping[str, str]) -> Process:
        job = self._job
        folder = job.folder.part(track, self.number)
        offset = self._offsets.get(track.name, 0.0)
        left = self._left(track)
        if job.snapshots:
            first = self._pictures.get(track.name, 0) + 1
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
