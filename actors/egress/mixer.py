"""A program of its own: makes one picture and one sound of many users', at an even pace.

    python -m actors.egress.mixer    (started by mix.py, which speaks to it over its pipes)

Each user's pictures and sound come through named pipes, decoded and scaled by an ffmpeg of the
user's own; what is put together goes to the encoder the same way. Nothing a source does can stop
the others: every tick of the clock makes a frame, with whatever of each user is there. What a
user lacks is silence and, after a while, a card that says so.

Standard input, one JSON object a line: first the settings (`Settings`), then `attach`, `detach`,
`cells`, `card`, `end`. Standard output: `started`, `here`, `gone`, `back`, `behind`, `ended`.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import sys
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
# Without a first picture from anybody, the recording begins after so long.
START_AFTER = 3.0
# How far the encoder may lag before it is told, in seconds.
BEHIND = 2.0
PIPE_SIZE = 1024 * 1024  # pipe(7): what an unprivileged process may ask for
BLACK = (16, 128, 128)


def say(**what: Any) -> None:
    """Tell the one who started us."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


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


class Mixer:
    """The program's state between two ticks."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.users: dict[str, User] = {}
        self.cards: dict[tuple[str, str, int, int], bytes] = {}
        self.gone: set[str] = set()
        self.met: set[str] = set()
        self.cells = settings.cells
        self.frame = bytearray(settings.width * settings.height * 3 // 2)
        self.canvas = planes(self.frame, settings.width, settings.height)
        self._wipe()
        self.over = False
        self.began = time.monotonic()
        self._lines = b""
        self._behind = False

    def _wipe(self) -> None:
        for plane, level in zip(self.canvas, BLACK, strict=True):
            plane.fill(level)

    # -- what we are told -------------------------------------------------------

    def listen(self) -> None:
        """Take what has come over standard input; its end is ours."""
        while select.select([0], [], [], 0)[0]:
            data = os.read(0, 65536)
            if not data:
                self.over = True
                return
            *lines, self._lines = (self._lines + data).split(b"\n")
            for line in lines:
                if line.strip():
                    self.obey(json.loads(line))

    def obey(self, order: dict[str, Any]) -> None:
        """One order."""
        name = order.get("user", "")
        match order["do"]:
            case "attach":
                self._attach(name, order)
            case "detach":
                self._drop(name)
            case "cells":
                self.cells = order["cells"]
                self._wipe()
            case "card":
                with open(order["path"], "rb") as file:
                    self.cards[order["kind"], name, order["width"], order["height"]] = file.read()
            case "end":
                self.over = True

    def _attach(self, name: str, order: dict[str, Any]) -> None:
        """Another attempt to get at a source: until it brings something, it is as it was."""
        before = self.users.get(name)
        try:
            user = User(self.settings, name, order)
        except FileNotFoundError:
            return  # it failed already, and took its pipes with it
        user.picture_at = user.heard_at = self.began if before is None else before.last_sign()
        self._drop(name)
        self.users[name] = user

    def _drop(self, name: str) -> None:
        user = self.users.pop(name, None)
        if user is not None:
            user.close()

    # -- one tick -----------------------------------------------------------------

    def read(self) -> None:
        """Take what the users have sent."""
        for user in self.users.values():
            user.read()

    def anybody(self) -> bool:
        """Is there something to begin with?"""
        return all(name in self.users and self.users[name].primed for name in self._names())

    def _names(self) -> list[str]:
        return [cell["user"] for cell in self.cells]

    def compose(self) -> None:
        """Bring the canvas to what is to be seen now, and tell who came or went."""
        now = time.monotonic()
        for cell in self.cells:
            name, width, height = cell["user"], cell["width"], cell["height"]
            user = self.users.get(name)
            size = (width, height)
            sign = user.last_sign() if user is not None else self.began
            seen = user.picture_at if user is not None and user.had_picture else sign
            self._judge(name, now - sign > self.settings.gone_after)
            if user is not None and user.primed and name not in self.met:
                self.met.add(name)
                say(event="here", user=name)
            shown = user.shown.get(size) if user is not None else None
            if name in self.gone or now - seen > 2 * self.settings.gone_after:
                self._put(cell, self.cards.get(("gone", name, width, height)))
            elif shown is not None:
                self._put(cell, shown)
            elif user is not None and user.primed:
                self._put(cell, self.cards.get(("sound", name, width, height)))

    def _judge(self, name: str, gone: bool) -> None:
        if gone and name not in self.gone:
            self.gone.add(name)
            say(event="gone", user=name)
        elif not gone and name in self.gone:
            self.gone.discard(name)
            say(event="back", user=name)

    def _put(self, cell: dict[str, Any], frame: bytearray | bytes | None) -> None:
        x, y, width, height = cell["x"], cell["y"], cell["width"], cell["height"]
        if frame is None:
            sources: tuple[Any, Any, Any] = BLACK
        else:
            sources = planes(frame, width, height)
        luma, blue, red = self.canvas
        luma[y : y + height, x : x + width] = sources[0]
        x, y, width, height = x // 2, y // 2, width // 2, height // 2
        blue[y : y + height, x : x + width] = sources[1]
        red[y : y + height, x : x + width] = sources[2]

    def mix(self, tick: int) -> bytes:
        """The sound of a tick: the sum of all, cut where it is too loud."""
        settings = self.settings
        count = settings.samples_at(tick + 1) - settings.samples_at(tick)
        total = numpy.zeros(count * settings.channels, numpy.int32)
        heard = 0
        last = b""
        for user in self.users.values():
            data = user.advance()
            if data:
                heard += 1
                samples = numpy.frombuffer(data, numpy.int16)[: len(total)]
                total[: len(samples)] += samples
                last = data
        if heard == 1 and len(last) == len(total) * 2:
            return last
        return numpy.clip(total, -32768, 32767).astype(numpy.int16).tobytes()

    # -- the clock --------------------------------------------------------------

    def run(self) -> None:
        """Frames at an even pace until we are told to end, or the encoder is gone."""
        settings = self.settings
        self._wait_for_a_start()
        if self.over:
            # The encoder waits for both pipes, and then has the end of both.
            for path in (settings.video, settings.audio):
                if path is not None:
                    os.close(_open_for_writing(path))
            say(event="ended", frames=0)
            return
        video = _open_for_writing(settings.video)
        audio: int | None = None
        say(event="started")
        started = time.monotonic()
        tick = 0
        while not self.over:
            due = started + tick / settings.fps
            self._until(due)
            self.listen()
            sound = self.mix(tick)
            self.compose()
            try:
                _write(video, self.frame)
                if settings.audio is not None:
                    if audio is None:
                        # ffmpeg looks at the first frame before it opens the second pipe.
                        audio = _open_for_writing(settings.audio)
                    _write(audio, sound)
            except BrokenPipeError:
                break
            tick += 1
            self._look_behind(time.monotonic() - due)
        os.close(video)
        if audio is not None:
            os.close(audio)
        say(event="ended", frames=tick)

    def _wait_for_a_start(self) -> None:
        until = time.monotonic() + START_AFTER
        while not self.over and not self.anybody() and time.monotonic() < until:
            self.listen()
            self.read()
            time.sleep(0.01)

    def _until(self, due: float) -> None:
        """Wait for the time of the next frame, and read as often as the pipes need it meanwhile."""
        pause = 1.0 / self.settings.fps / self._looks()
        while True:
            left = due - time.monotonic()
            if left > 0:
                time.sleep(min(left, pause))
            self.read()
            if left <= pause:
                return

    def _looks(self) -> int:
        """Looks at the pipes in each tick: one look takes what a pipe holds."""
        largest = max((f.bytes for u in self.users.values() for f in u.frames), default=0)
        return largest // (PIPE_SIZE // 2) + 1

    def _look_behind(self, late: float) -> None:
        if late > BEHIND and not self._behind:
            self._behind = True
            say(event="behind", seconds=round(late, 1))
        elif late < BEHIND / 2:
            self._behind = False


def _open_for_writing(path: str) -> int:
    descriptor = os.open(path, os.O_WRONLY)
    widen(descriptor)
    return descriptor


def _write(descriptor: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def main() -> None:
    """Read the settings, then mix."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return
        line += byte
    Mixer(Settings(json.loads(line))).run()


if __name__ == "__main__":
    main()
