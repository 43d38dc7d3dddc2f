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

import json
import os
import select
import sys
import time
from typing import Any

import numpy
import numpy.typing

from actors.egress.users import PIPE_SIZE, Settings, User, planes, widen

# Without a first picture from anybody, the recording begins after so long.
START_AFTER = 3.0
# How far the encoder may lag before it is told, in seconds.
BEHIND = 2.0
BLACK = (16, 128, 128)


def say(**what: Any) -> None:
    """Tell the one who started us."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


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
