"""The mixer as the program it is, between real pipes: what goes in, and every frame that comes out.

Pictures are of one level of brightness each, that counts the frames of their user; sound is one
level too. What comes out is waited for frame by frame. Sources go at the pace of the clock, as
decoders do; that is the one thing here that takes its time.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import pytest
import trio

from actors.egress.layout import Cell
from actors.egress.mix import Mix, fresh_pipe
from actors.egress.mixer import BEHIND
from actors.egress.request import Audio, Video, Wanted
from supervisor.process import Exit
from tests.supervisor.procs import registry

FPS, RATE = 25, 8000
SIZE = (32, 32)
SIDE_BY_SIDE = [Cell("a", 0, 0, *SIZE), Cell("b", 32, 0, *SIZE)]
ONE = [Cell("a", 0, 0, *SIZE)]
GONE_AFTER = 0.4
BLACK = 16
CARD = 250


def picture(level: int, size: tuple[int, int] = SIZE) -> bytes:
    luma = size[0] * size[1]
    return bytes([level]) * luma + bytes([128]) * (luma // 2)


@dataclass
class Source:
    """A user's decoder: writes frames of all its sizes, and the sound of each, at its pace."""

    desk: Desk
    user: str
    sizes: Sequence[tuple[int, int]] = (SIZE,)
    first: int = 20
    amplitude: int = 0
    pipes: list[int] = field(default_factory=list)
    sound: int = -1
    sent: int = 0

    async def attach(self) -> Source:
        """With new pipes."""
        self.close()
        desk = self.desk
        desk.attached += 1
        stem = desk.folder / f"{desk.attached}"
        paths = [(stem.with_suffix(f".{w}x{h}"), w, h) for w, h in self.sizes]
        sound = stem.with_suffix(".sound")
        for path in (*(p for p, _, _ in paths), sound):
            fresh_pipe(path)
        # For both ways: opened before the mixer has, and never without a reader.
        self.pipes = [os.open(p, os.O_RDWR | os.O_NONBLOCK) for p, _, _ in paths]
        self.sound = os.open(sound, os.O_RDWR | os.O_NONBLOCK)
        await desk.mix.attach(self.user, paths, sound)
        return self

    def write(self, *, cut: int | None = None, rest: int = 0) -> None:
        """The next frame; only so many bytes of it, or only its rest."""
        level = self.first + self.sent % 200
        for pipe, size in zip(self.pipes, self.sizes, strict=True):
            os.write(pipe, picture(level, size)[rest:cut])
        if cut is None:
            samples = numpy.full(RATE // FPS, self.amplitude, numpy.int16)
            os.write(self.sound, samples.tobytes())
            self.sent += 1

    async def play(self, stop: trio.Event | None = None) -> None:
        """Frame after frame, until told to stop."""
        began = trio.current_time()
        count = 0
        while stop is None or not stop.is_set():
            self.write()
            count += 1
            await trio.sleep_until(began + count / FPS)

    def close(self) -> None:
        for pipe in (*self.pipes, self.sound):
            if pipe >= 0:
                os.close(pipe)
        self.pipes, self.sound = [], -1


class Desk:
    """A mixer that runs, and all that came out of it."""

    def __init__(
        self, folder: Path, cells: Sequence[Cell], width: int = 64, height: int = 32
    ) -> None:
        self.folder = folder
        self.width, self.height = width, height
        self.frames: list[numpy.typing.NDArray[numpy.uint8]] = []
        self.times: list[float] = []
        self.samples = bytearray()
        self.said: list[dict[str, Any]] = []
        self.attached = 0
        self.ended: Exit | None = None
        # Closed by a test, the encoder takes no more.
        self.takes = trio.Event()
        self.takes.set()
        self.hung_up = trio.CancelScope()
        self.sources: list[Source] = []
        self._news = trio.Event()
        wanted = Wanted(video=Video(width, height, FPS), audio=Audio(sample_rate=8000, channels=1))
        self.mix = Mix(folder, wanted, FPS, cells, GONE_AFTER, registry(), "test", self._said)

    def _said(self, what: dict[str, Any]) -> None:
        self.said.append(what)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            running = await nursery.start(self._run)
            del running
            nursery.start_soon(self._encode)
            task_status.started()

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        self.ended = await self.mix.run(task_status)
        self._tell()

    async def _encode(self) -> None:
        """Take all that comes, as the encoder does."""
        assert self.mix.audio is not None
        with self.hung_up:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take, self.mix.video, self._take_video)
                nursery.start_soon(self._take, self.mix.audio, self.samples.extend)

    async def _take(self, path: Path, into: Callable[[bytes], None]) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            while True:
                await trio.lowlevel.wait_readable(descriptor)
                await self.takes.wait()
                try:
                    data = os.read(descriptor, 2**20)
                except BlockingIOError:
                    continue
                if not data:
                    return
                into(data)
                self._tell()
        finally:
            os.close(descriptor)

    _partial = b""

    def _take_video(self, data: bytes) -> None:
        self._partial += data
        whole = self.width * self.height * 3 // 2
        while len(self._partial) >= whole:
            frame = numpy.frombuffer(self._partial[: self.width * self.height], numpy.uint8)
            self.frames.append(frame.reshape(self.height, self.width))
            self.times.append(trio.current_time())
            self._partial = self._partial[whole:]

    # -- what a test looks at -----------------------------------------------------

    def source(self, user: str, **more: Any) -> Source:
        found = Source(self, user, **more)
        self.sources.append(found)
        return found

    def cell(self, cell: Cell, number: int = -1) -> int:
        """The brightness in a cell of a frame, which is the same everywhere in it."""
        part = self.frames[number][cell.y : cell.y + cell.height, cell.x : cell.x + cell.width]
        assert part.min() == part.max(), f"{cell.user} is torn in frame {number}: {part}"
        return int(part[0, 0])

    def levels(self, cell: Cell, since: int = 0) -> list[int]:
        return [self.cell(cell, n) for n in range(since, len(self.frames))]

    @property
    def sound(self) -> numpy.typing.NDArray[numpy.int16]:
        return numpy.frombuffer(bytes(self.samples[: len(self.samples) // 2 * 2]), numpy.int16)

    def events(self, user: str = "") -> list[str]:
        return [str(s["event"]) for s in self.said if s.get("user", "") == user]

    async def until(self, holds: Callable[[], bool], within: float = 20) -> None:
        """Return once it holds of what came out."""
        with trio.fail_after(within):
            while not holds():
                await self._news.wait()

    async def more(self, count: int) -> int:
        """Return after so many more frames; the number of the first of them."""
        since = len(self.frames)
        await self.until(lambda: len(self.frames) >= since + count)
        return since

    async def over(self) -> int:
        """Its exit status."""
        await self.until(lambda: self.ended is not None)
        assert self.ended is not None
        return self.ended.status


@asynccontextmanager
async def desk(
    folder: Path, cells: Sequence[Cell] = SIDE_BY_SIDE, **more: int
) -> AsyncIterator[tuple[Desk, trio.Nursery]]:
    """A mixer, and a nursery for its sources; both end with the block."""
    found = Desk(folder, cells, **more)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(found.run)
            try:
                yield found, nursery
            finally:
                nursery.cancel_scope.cancel()
    for source in found.sources:
        source.close()


def rising(levels: list[int]) -> float:
    """The share of steps of exactly one: no frame left out and none shown twice.

    Both happen where the test itself is late; over a few frames much of it.
    """
    steps = [(b - a) % 200 for a, b in itertools.pairwise(levels)]
    assert all(0 <= step <= FPS for step in steps), levels
    return sum(step == 1 for step in steps) / len(steps)


async def card(it: Desk, kind: str, user: str, level: int = CARD) -> None:
    path = it.folder / f"{kind}-{user}"
    path.write_bytes(picture(level))
    await it.mix.card(kind, user, SIZE, path)


# -- pace, place and sound ---------------------------------------------------------------


async def test_each_is_in_its_place_at_an_even_pace_with_the_sound_of_all(tmp_path: Path) -> None:
    async with desk(tmp_path) as (it, nursery):
        a = await it.source("a", amplitude=1000).attach()
        b = await it.source("b", first=30, amplitude=-4000).attach()
        nursery.start_soon(a.play)
        nursery.start_soon(b.play)
        await it.until(lambda: "here" in it.events("a") and "here" in it.events("b"))
        since = await it.more(2 * FPS)
        assert it.events() == ["started"]
        for cell in SIDE_BY_SIDE:
            assert rising(it.levels(cell, since)) > 0.7
        seconds = it.times[-1] - it.times[since]
        assert (len(it.frames) - 1 - since) / seconds == pytest.approx(FPS, rel=0.1)
        # Each frame has its samples, to the last; none is silent while both talk.
        await it.mix.end()
        assert await it.over() == 0
        await it.until(lambda: len(it.sound) == len(it.frames) * RATE // FPS)
        heard = it.sound[since * RATE // FPS :]
        assert numpy.mean(heard == -3000) > 0.8


@pytest.mark.parametrize(("amplitude", "cut"), [(30000, 32767), (-30000, -32768)])
async def test_what_is_too_loud_together_is_cut(tmp_path: Path, amplitude: int, cut: int) -> None:
    async with desk(tmp_path) as (it, nursery):
        for user in "ab":
            source = await it.source(user, amplitude=amplitude).attach()
            nursery.start_soon(source.play)
        await it.until(lambda: len(it.sound) > 0 and it.sound[-1] == cut)
        assert set(it.sound[-RATE // FPS :].tolist()) <= {cut, amplitude}


# -- who is not there --------------------------------------------------------------------


async def test_who_sends_nothing_is_gone_after_the_time_and_comes_back(tmp_path: Path) -> None:
    a_cell, b_cell = SIDE_BY_SIDE
    async with desk(tmp_path) as (it, nursery):
        await card(it, "gone", "b")
        a, b = await it.source("a").attach(), await it.source("b", amplitude=500).attach()
        nursery.start_soon(a.play)
        quiet = trio.Event()
        nursery.start_soon(b.play, quiet)
        await it.until(lambda: "here" in it.events("b") and len(it.frames) > 5)
        quiet.set()
        began = trio.current_time()
        await it.until(lambda: "gone" in it.events("b"))
        assert GONE_AFTER - 0.1 < trio.current_time() - began < GONE_AFTER + 1.0
        await it.until(lambda: it.cell(b_cell) == CARD)
        since = await it.more(10)
        # Meanwhile the other goes on, and what is gone is silent.
        assert rising(it.levels(a_cell, since)) > 0.3
        assert set(it.levels(b_cell, since)) == {CARD}
        assert it.sound[-1] == 0
        nursery.start_soon(b.play)
        await it.until(lambda: "back" in it.events("b") and it.cell(b_cell) != CARD)
        since = await it.more(10)
        assert rising(it.levels(b_cell, since)) > 0.3
        assert it.events("b") == ["here", "gone", "back"]
        assert it.events("a") == ["here"]


async def test_without_a_card_who_is_gone_is_black(tmp_path: Path) -> None:
    async with desk(tmp_path, ONE) as (it, nursery):
        a = await it.source("a").attach()
        quiet = trio.Event()
        nursery.start_soon(a.play, quiet)
        await it.until(lambda: len(it.frames) > 5 and it.cell(ONE[0]) > BLACK)
        quiet.set()
        await it.until(lambda: it.cell(ONE[0]) == BLACK)
        assert it.events("a") == ["here", "gone"]


async def test_a_source_that_is_tried_in_vain_is_not_back(tmp_path: Path) -> None:
    async with desk(tmp_path, ONE) as (it, nursery):
        a = await it.source("a").attach()
        quiet = trio.Event()
        nursery.start_soon(a.play, quiet)
        await it.until(lambda: "here" in it.events("a"))
        quiet.set()
        await it.until(lambda: "gone" in it.events("a"))
        for _ in range(3):
            await a.attach()
            await it.more(3)
        assert it.events("a") == ["here", "gone"]
        nursery.start_soon(a.play)
        await it.until(lambda: "back" in it.events("a"))


async def test_nobody_holds_up_the_recording_for_long(tmp_path: Path) -> None:
    """One never comes: after a while it begins, with the others."""
    a_cell, b_cell = SIDE_BY_SIDE
    async with desk(tmp_path) as (it, nursery):
        await card(it, "gone", "b")
        a = await it.source("a").attach()
        nursery.start_soon(a.play)
        await it.until(lambda: "gone" in it.events("b") and len(it.frames) > 10)
        assert it.cell(b_cell) == CARD
        assert it.cell(a_cell) > BLACK
        # Its pipes are gone again by the time it is told of them: nothing is changed by that.
        missing = tmp_path / "missing"
        await it.mix.attach("a", [(missing, *SIZE)], missing)
        since = await it.more(10)
        assert rising(it.levels(a_cell, since)) > 0.3
        assert it.events("b") == ["gone"]


async def test_who_has_sound_alone_has_a_card_of_its_own(tmp_path: Path) -> None:
    async with desk(tmp_path, ONE) as (it, nursery):
        await card(it, "sound", "a", 77)
        a = await it.source("a", sizes=(), amplitude=900).attach()
        nursery.start_soon(a.play)
        await it.until(lambda: len(it.frames) > 0 and it.cell(ONE[0]) == 77)
        await it.until(lambda: len(it.sound) > 0 and it.sound[-1] == 900)
        assert it.events("a") == ["here"]


# -- writers that stall and die ----------------------------------------------------------


async def test_a_writer_that_stalls_in_mid_frame_tears_nothing(tmp_path: Path) -> None:
    a_cell, b_cell = SIDE_BY_SIDE
    async with desk(tmp_path) as (it, nursery):
        a, b = await it.source("a").attach(), await it.source("b").attach()
        nursery.start_soon(a.play)
        quiet = trio.Event()
        nursery.start_soon(b.play, quiet)
        await it.until(lambda: "here" in it.events("b"))
        await it.more(5)
        quiet.set()
        await it.more(3)
        b.write(cut=700)
        since = await it.more(5)
        assert rising(it.levels(a_cell, since)) > 0.3
        assert len(set(it.levels(b_cell, since))) <= 4
        b.write(rest=700)
        nursery.start_soon(b.play)
        last = b.first + b.sent % 200
        await it.until(lambda: it.cell(b_cell) > last)
        # No frame of all that came is torn: `cell` looks at every sample.
        it.levels(b_cell)


async def test_a_writer_that_dies_in_mid_frame_is_followed_by_a_new_one(tmp_path: Path) -> None:
    async with desk(tmp_path, ONE) as (it, nursery):
        a = await it.source("a").attach()
        dead = trio.Event()
        nursery.start_soon(a.play, dead)
        await it.until(lambda: "here" in it.events("a"))
        await it.more(5)
        dead.set()
        await it.more(3)
        a.write(cut=100)
        await a.attach()
        a.first, a.sent = 220, 0
        quiet = trio.Event()
        nursery.start_soon(a.play, quiet)
        await it.until(lambda: it.cell(ONE[0]) >= 220)
        since = await it.more(8)
        quiet.set()
        assert rising(it.levels(ONE[0], since)) > 0.3
        it.levels(ONE[0])


async def test_what_comes_all_at_once_is_skipped_to_what_is_new(tmp_path: Path) -> None:
    """After a stall of the network: nobody lags behind for the rest of a recording."""
    async with desk(tmp_path, ONE) as (it, nursery):
        a = await it.source("a").attach()
        quiet = trio.Event()
        nursery.start_soon(a.play, quiet)
        await it.until(lambda: "here" in it.events("a"))
        quiet.set()
        await it.more(3)
        for _ in range(5 * FPS):
            a.write()
        nursery.start_soon(a.play)
        await it.until(lambda: 0 < a.first + a.sent % 200 - it.cell(ONE[0]) < 2 * FPS)


# -- while it runs -------------------------------------------------------------------------


async def test_another_layout_is_shown_from_the_next_frame_on(tmp_path: Path) -> None:
    small = (16, 16)
    large_a = [Cell("a", 0, 0, *SIZE), Cell("b", 48, 0, *small)]
    large_b = [Cell("b", 0, 0, *SIZE), Cell("a", 48, 0, *small)]
    async with desk(tmp_path, large_a) as (it, nursery):
        both = (SIZE, small)
        a = await it.source("a", sizes=both, first=20).attach()
        b = await it.source("b", sizes=both, first=30, amplitude=0).attach()
        # Standing pictures, that differ.
        nursery.start_soon(_stand, a, 100)
        nursery.start_soon(_stand, b, 200)
        await it.until(lambda: len(it.frames) > 3 and _shown(it, large_a) == [100, 200])
        await it.mix.cells(large_b)
        await it.until(lambda: _shown(it, large_b) == [200, 100])
        # One alone: where others were is nothing any more.
        await it.mix.cells([Cell("a", 32, 0, *SIZE)])
        await it.until(lambda: it.frames[-1][0, 0] == BLACK)
        assert it.cell(Cell("a", 32, 0, *SIZE)) == 100
        assert it.cell(Cell("b", 0, 0, *SIZE)) == BLACK
        assert it.events("a") == it.events("b") == ["here"]


def _shown(it: Desk, cells: Sequence[Cell]) -> list[int]:
    return [int(it.frames[-1][c.y + c.height // 2, c.x + c.width // 2]) for c in cells]


async def _stand(source: Source, level: int) -> None:
    began = trio.current_time()
    while True:
        source.first = level - source.sent % 200
        source.write()
        await trio.sleep_until(began + source.sent / FPS)


async def test_who_is_detached_is_gone(tmp_path: Path) -> None:
    async with desk(tmp_path, ONE) as (it, nursery):
        a = await it.source("a").attach()
        nursery.start_soon(a.play)
        await it.until(lambda: "here" in it.events("a"))
        await it.mix._tell({"do": "detach", "user": "a"})
        await it.until(lambda: it.events("a") == ["here", "gone"])
        await it.until(lambda: it.cell(ONE[0]) == BLACK)


async def test_an_encoder_that_lags_is_told_of_and_loses_no_frame(tmp_path: Path) -> None:
    """Frames that the pipe does not take wait, and then come all: the recording keeps its time."""
    wide = {"width": 640, "height": 360}
    async with desk(tmp_path, ONE, **wide) as (it, nursery):
        a = await it.source("a").attach()
        nursery.start_soon(a.play)
        await it.more(5)
        began, before = trio.current_time(), len(it.frames)
        it.takes = trio.Event()
        await trio.sleep(BEHIND + 0.3)
        it.takes.set()
        await it.until(lambda: _lag(it) > BEHIND)
        await it.until(lambda: len(it.frames) - before >= (trio.current_time() - began) * FPS * 0.9)


def _lag(it: Desk) -> float:
    return float(next((s["seconds"] for s in it.said if s["event"] == "behind"), 0.0))


# -- its end ---------------------------------------------------------------------------------


async def test_it_ends_with_its_encoder(tmp_path: Path) -> None:
    async with desk(tmp_path, ONE) as (it, nursery):
        a = await it.source("a").attach()
        nursery.start_soon(a.play)
        await it.more(3)
        it.hung_up.cancel()
        assert await it.over() == 0
        assert it.said[-1]["event"] == "ended"


async def test_it_ends_when_it_is_told_and_says_how_much_it_made(tmp_path: Path) -> None:
    async with desk(tmp_path, ONE) as (it, nursery):
        a = await it.source("a").attach()
        nursery.start_soon(a.play)
        await it.more(3)
        await it.mix.end()
        assert await it.over() == 0
        await it.until(lambda: it.said[-1] == {"event": "ended", "frames": len(it.frames)})


@pytest.mark.parametrize("begun", [True, False])
async def test_it_ends_with_the_one_who_started_it(tmp_path: Path, begun: bool) -> None:
    """Its standard input is closed: also while it waits for a first picture."""
    async with desk(tmp_path, ONE) as (it, nursery):
        if begun:
            a = await it.source("a").attach()
            nursery.start_soon(a.play)
            await it.more(3)
        process = it.mix.process._process
        assert process is not None
        assert process.stdin is not None
        await process.stdin.aclose()
        assert await it.over() == 0
        assert it.said[-1]["event"] == "ended"
        assert (it.said[-1]["frames"] > 0) == begun
