"""One user's source, for as long as a part lasts: started, watched, started again.

That a source is away is a state and not an error: the mixer shows that the user is gone, and it is
tried again, with backoff, until the recording ends.
"""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from actors.egress.mix import Mix, fresh_pipe
from actors.egress.progress import ProgressReader
from actors.egress.sources import Origin, Shape, feed_arguments
from supervisor.backoff import Backoff
from supervisor.log import logger
from supervisor.orphans import Registry
from supervisor.process import Command, Exit, Process

AGAIN = Backoff(first=0.5, cap=5.0, healthy_after=10.0)
# An ffmpeg that has brought nothing for so long is ended, in seconds. A source that is waited for
# (`listen`) may take as long as it likes to come.
STALLED = 15.0
LOOK_EVERY = 1.0
# A stream that became another (its codec changed) is never decoded again by the ffmpeg that began
# with the one before. It has errors and few pictures; so many more such seconds than others.
UNREADABLE = 3

# Finds the growing file of a gateway's call: (path, ffmpeg's options for it). Waits for a call.
Tail = Callable[[str], Awaitable[tuple[Path, list[str]]]]
Tell = Callable[[str, dict[str, object]], None]


class Feed:
    """`over` is set when the source has ended for good. `groups` are its process groups."""

    def __init__(
        self,
        origin: Origin,
        shape: Shape,
        folder: Path,
        mix: Mix,
        registry: Registry,
        owner: str,
        number: int,
        tail: Tail,
        tell: Tell,
        *,
        sound: bool,
    ) -> None:
        self.origin = origin
        self.over = trio.Event()
        self.process: Process | None = None
        self._shape = shape
        self._folder = folder
        self._mix = mix
        self._registry = registry
        self._owner = owner
        self._number = number
        self._tail = tail
        self._tell = tell
        self._sound = sound
        # What the source turned out to have.
        self._picture, self._audible = True, sound
        self._generation = 0

    async def run(self) -> None:
        """Keep it going until cancelled, or until it is over."""
        failures, rng = 0, random.Random()  # noqa: S311 - jitter
        while True:
            began = trio.current_time()
            had = (self._picture, self._audible)
            why = await self._once()
            if not why and self.origin.ends:
                self._tell("source_ended", {"user": self.origin.user})
                self.over.set()
                return
            if (self._picture, self._audible) != had:
                continue  # it has no picture, or no sound: at once again without
            failures = AGAIN.failures_after(failures, trio.current_time() - began)
            self._tell(
                "source_lost",
                {"user": self.origin.user, "reason": why or "it ended", "failures": failures},
            )
            await trio.sleep(AGAIN.delay(failures, rng))

    async def _once(self) -> str:
        """Run ffmpeg until it ends; why it did, or nothing after an ordinary end."""
        tail = None
        if self.origin.scheme == "gateway":
            if self._picture:
                self._picture = False
                self._tell("source_has_no_picture", {"user": self.origin.user})
            tail = await self._tail(self.origin.url.partition(":")[2])
        self._generation += 1
        stem = f"{self._number}.{self._generation}"
        sizes = self._shape.sizes if self._picture else ()
        pictures = [(self._folder / f"{stem}.{w}x{h}.video", w, h) for w, h in sizes]
        sound = self._folder / f"{stem}.audio"
        for pipe in (*(p for p, _, _ in pictures), sound):
            fresh_pipe(pipe)
        try:
            audible = sound if self._audible else None
            await self._mix.attach(self.origin.user, pictures, audible)
            arguments = feed_arguments(
                self.origin,
                self._shape,
                [p for p, _, _ in pictures],
                sound,
                picture=self._picture,
                audible=self._audible,
                tail=tail,
            )
            return await self._run(arguments)
        finally:
            for pipe in (*(p for p, _, _ in pictures), sound):
                pipe.unlink(missing_ok=True)

    async def _run(self, arguments: list[str]) -> str:
        signs = _Signs(self._shape.fps, self.origin.listen)
        command = Command(arguments, owner=self._owner)
        process = self.process = Process(command, self._registry, signs.line, signs.error)
        given_up = problem = ""
        ended: Exit | None = None

        async def watch() -> None:
            nonlocal given_up
            while not given_up:
                await trio.sleep(LOOK_EVERY)
                given_up = signs.trouble()
            await process.kill()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                ended = await process.run()
                nursery.cancel_scope.cancel()
        except* OSError as group:
            problem = f"ffmpeg cannot be started: {group.exceptions[0]}"
        finally:
            self.process = None
        if problem or ended is None:
            return problem
        if given_up:
            return given_up
        if ended.status == 0:
            return ""
        self._learn(signs.errors)
        said = self._scrub(" ".join(signs.errors[-2:]))
        return f"ffmpeg {ended}: {said}"[:500]

    def _learn(self, errors: list[str]) -> None:
        """Ffmpeg says which kind of stream it looked for in vain."""
        text = "\n".join(errors)
        if "matches no streams" not in text:
            return
        if ":v:0" in text and self._picture:
            self._picture = False
            self._tell("source_has_no_picture", {"user": self.origin.user})
        elif "0:a:0" in text and self._audible:
            self._audible = False
        if not (self._picture or self._audible):
            self._picture, self._audible = True, self._sound
        logger.info(
            "source_has", actor=self._owner, user=self.origin.user,
            picture=self._picture, sound=self._audible,
        )  # fmt: skip

    def _scrub(self, text: str) -> str:
        """Ffmpeg repeats the address, and those that a playlist names: they may hold a secret."""
        text = text.replace(self.origin.url, self.origin.scheme + "://***")
        return _ADDRESS.sub(lambda found: found[1] + "***", text)


# What may be told of an address is its scheme; of a path and a query nothing.
_ADDRESS = re.compile(r"(\b[a-z][a-z0-9+.]*://)[^\s'\"]*", re.IGNORECASE)


class _Signs:
    """What an ffmpeg says while it brings a source, and whether that is a reason to end it."""

    def __init__(self, fps: int, listen: bool) -> None:
        self.errors: list[str] = []
        self._fps = fps
        self._listen = listen
        self._reader = ProgressReader()
        self._moved = trio.current_time()
        self._seconds = 0.0
        self._frames = 0
        self._undecoded = 0
        self._bad_seconds = 0

    def line(self, text: str) -> None:
        """A line of its progress, of which a block comes each second."""
        progress = self._reader.take(text)
        if progress is None:
            return
        if progress.seconds > self._seconds:
            self._seconds, self._moved = progress.seconds, trio.current_time()
        bad = self._undecoded > 0 and progress.frames - self._frames < self._fps / 2
        self._bad_seconds = max(self._bad_seconds + (1 if bad else -1), 0)
        self._frames, self._undecoded = progress.frames, 0

    def error(self, text: str) -> None:
        """A line of its warnings and errors."""
        if "Error while decoding" in text:
            self._undecoded += 1
        if len(self.errors) < 50:
            self.errors.append(text)

    def trouble(self) -> str:
        """Why it is better ended; empty while all is well."""
        waiting = self._listen and self._seconds == 0.0
        if not waiting and trio.current_time() - self._moved > STALLED:
            return f"nothing came for {STALLED:g} s"
        if self._bad_seconds >= UNREADABLE:
            return "its picture could not be decoded any more"
        return ""
