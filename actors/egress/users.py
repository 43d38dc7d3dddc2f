"""What comes of each user, as the mixer has it: pictures and sound, and their place in time."""

from __future__ import annotations

import fcntl
import os
import time
from collections import deque
from contextlib import suppress
from typing import Any

import numpy
import numpy.typing

Plane = numpy.typing.NDArray[numpy.uint8]
# A user's pictures are held back so long, in seconds, so that what comes unevenly goes out evenly.
JITTER = 0.2
# The later of picture and sound is waited for so long; then what there is goes out without it.
WAIT = 1.0
# Pictures that have come too late for so long: picture and sound wait until both are there again.
LATE = 0.5
# More than so much waiting, in seconds, is what a stall left behind: skipped.
MOST = 1.5
PIPE_SIZE = 1024 * 1024  # pipe(7): what an unprivileged process may ask for


class Settings:
    """The first line: size, pace and where it goes; `gone_after` in seconds."""

    def __init__(self, line: dict[str, Any]) -> None:
        self.width: int = line["width"]
        self.height: int = line["height"]
        self.fps: int = line["fps"]
        self.rate: int = line["rate"]
        self.channels: int = line["channels"]
        self.video: str = line["video"]
        self.audio: str | None = line.get("audio")
        self.cells: list[dict[str, Any]] = line["cells"]
        self.gone_after: float = line["gone_after"]

    def samples_at(self, tick: int) -> int:
        """How many samples of sound there are before a frame."""
        return tick * self.rate // self.fps


def open_pipe(path: str) -> int:
    """The reading end, open at once and never at its end: writers come and go."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    widen(descriptor)
    return descriptor


def widen(descriptor: int) -> None:
    """A larger pipe saves wake-ups; without it all works."""
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_SIZE)


def planes(frame: bytearray | bytes, width: int, height: int) -> tuple[Plane, Plane, Plane]:
    """The three planes of a yuv420p frame, as views."""
    whole = numpy.frombuffer(frame, numpy.uint8)
    luma = width * height
    chroma = luma // 4
    return (
        whole[:luma].reshape(height, width),
        whole[luma : luma + chroma].reshape(height // 2, width // 2),
        whole[luma + chroma : luma + 2 * chroma].reshape(height // 2, width // 2),
    )


class Frames:
    """The frames of one size that come through one pipe; `first` is the number of the oldest."""

    def __init__(self, path: str, width: int, height: int, most: int) -> None:
        self.size = (width, height)
        self._fd = open_pipe(path)
        self.bytes = width * height * 3 // 2
        self._most = most
        self._spare: list[bytearray] = []
        self._filling = bytearray(self.bytes)
        self._filled = 0
        self.waiting: deque[bytearray] = deque()
        self.first = 0

    def read(self) -> bool:
        """Take what is there; was there anything?"""
        got = False
        while True:
            try:
                count = os.readv(self._fd, [memoryview(self._filling)[self._filled :]])
            except BlockingIOError:
                return got
            if not count:
                return got
            got = True
            self._filled += count
            if self._filled == self.bytes:
                self.waiting.append(self._filling)
                self._filling = self._spare.pop() if self._spare else bytearray(self.bytes)
                self._filled = 0
                if len(self.waiting) > self._most:
                    self.skip_to(self.first + len(self.waiting) // 2)

    def skip_to(self, number: int) -> None:
        """Drop the frames before `number`."""
        while self.waiting and self.first < number:
            self.recycle(self.waiting.popleft())
            self.first += 1

    def take(self, number: int) -> tuple[int, bytearray] | None:
        """The newest up to `number`, with its own number: one too late is better than none."""
        self.skip_to(min(number, self.first + len(self.waiting) - 1))
        if not self.waiting or self.first > number:
            return None
        self.first += 1
        return self.first - 1, self.waiting.popleft()

    def recycle(self, frame: bytearray) -> None:
        """A frame that nobody looks at any more."""
        if len(self._spare) < 4:
            self._spare.append(frame)

    def close(self) -> None:
        """No more of it."""
        os.close(self._fd)


class Sound:
    """The samples that come through one pipe; `first` is the number of the oldest."""

    def __init__(self, path: str, channels: int, most: int) -> None:
        self._fd = open_pipe(path)
        self._frame = channels * 2
        self._most = most * self._frame
        self.waiting = bytearray()
        self.first = 0

    @property
    def count(self) -> int:
        """Samples of each channel that wait."""
        return len(self.waiting) // self._frame

    def read(self) -> bool:
        """Take what is there; was there anything?"""
        got = False
        while True:
            try:
                data = os.read(self._fd, PIPE_SIZE)
            except BlockingIOError:
                return got
            if not data:
                return got
            got = True
            self.waiting += data
            if len(self.waiting) > self._most:
                self.skip_to(self.first + self.count // 2)

    def skip_to(self, number: int) -> None:
        """Drop the samples before `number`."""
        drop = min(max(number - self.first, 0), self.count)
        del self.waiting[: drop * self._frame]
        self.first += drop

    def take(self, count: int) -> bytes:
        """Up to `count` samples."""
        data = bytes(self.waiting[: count * self._frame])
        self.skip_to(self.first + count)
        return data

    def close(self) -> None:
        """No more of it."""
        os.close(self._fd)


class User:
    """One source's place in time: picture and sound of it stay together.

    `tick` counts the frames of its own timeline that have gone out. It stands still while neither
    picture nor sound comes, and then goes on where it stood.
    """

    def __init__(self, settings: Settings, name: str, attach: dict[str, Any]) -> None:
        self._settings = settings
        self.name = name
        most = int(MOST * settings.fps)
        self.frames: list[Frames] = []
        self.sound: Sound | None = None
        try:
            for f in attach["video"]:
                self.frames.append(Frames(f["path"], f["width"], f["height"], most))
            if path := attach.get("audio"):
                self.sound = Sound(path, settings.channels, int(MOST * settings.rate))
        except OSError:
            self.close()
            raise
        self.shown: dict[tuple[int, int], bytearray] = {}
        self.tick = 0
        self.primed = False
        self._late = 0
        self.picture_at = self.heard_at = time.monotonic()
        self.had_picture = False

    def read(self) -> None:
        """Take what has come."""
        now = time.monotonic()
        for frames in self.frames:
            if frames.read():
                self.picture_at = now
        if self.sound is not None and self.sound.read():
            self.heard_at = now
        if not self.primed:
            ahead = self._ahead()
            self.primed = bool(ahead) and (min(ahead) >= JITTER or max(ahead) >= WAIT)
        self._catch_up()

    def _ahead(self) -> list[float]:
        """How many seconds of each pipe there are for the ticks to come."""
        fps = self._settings.fps
        found = [(f.first + len(f.waiting) - self.tick) / fps for f in self.frames]
        if self.sound is not None:
            reach = (self.sound.first + self.sound.count) / self._settings.rate
            found.append(reach - self.tick / fps)
        return found

    def _catch_up(self) -> None:
        """After an overflow the oldest are gone: the timeline goes on where something is."""
        starts = [f.first for f in self.frames if f.waiting]
        if starts and min(starts) > self.tick:
            self.tick = min(starts)

    def last_sign(self) -> float:
        """When the last thing of it came."""
        return max(self.picture_at, self.heard_at)

    def advance(self) -> bytes:
        """One tick on: what is to be seen changes in `shown`; returns the sound of the tick."""
        if not self.primed:
            return b""
        settings = self._settings
        start, end = settings.samples_at(self.tick), settings.samples_at(self.tick + 1)
        audible = self.sound is not None and self.sound.first + self.sound.count > start
        visible = any(f.first + len(f.waiting) > self.tick for f in self.frames)
        if not (audible or visible):
            self.primed = False
            return b""
        for frames in self.frames:
            taken = frames.take(self.tick)
            if taken is None:
                continue
            number, frame = taken
            old = self.shown.get(frames.size)
            self.shown[frames.size] = frame
            self.had_picture = True
            if old is not None:
                frames.recycle(old)
            self._late = self._late + 1 if number < self.tick else 0
        if self._late > LATE * settings.fps:
            self.primed, self._late = False, 0
        heard = b""
        if self.sound is not None:
            self.sound.skip_to(start)
            heard = self.sound.take(end - start)
        self.tick += 1
        return heard

    def close(self) -> None:
        """No more of it."""
        for frames in self.frames:
            frames.close()
        if self.sound is not None:
            self.sound.close()
