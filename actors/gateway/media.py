"""What becomes of a gateway's sound: finished recordings, their transcripts, the RTMP stream.

Runs in the actor's nursery and reports to it; the actor keeps the figures.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from actors.gateway import recording, records, transcript
from actors.gateway.messages import RecordingFinished, TranscriptDone, TranscriptProgress
from actors.gateway.services import Services
from supervisor.backoff import Backoff
from supervisor.errors import ActorDown, MailboxFull
from supervisor.log import logger
from supervisor.ref import AnyRef

Post = Callable[[RecordingFinished | TranscriptDone], Awaitable[None]]

# Recordings of one appliance that are transcribed at once: it takes a core each.
TRANSCRIBING_AT_ONCE = 1
# A call's end is told a moment before its file is closed: how often, and after how many seconds,
# it is looked again. What is still open then belongs to a call that goes on.
LOOKS, LOOK_AGAIN = 4, 0.5
# A recording that cannot be finished is tried so often by itself, half an hour in all; after that
# only when something else makes its gateway look.
TRIES = 12
AGAIN = Backoff(first=5.0, cap=300.0)


class Media:
    """One gateway's."""

    def __init__(
        self,
        gw_id: str,
        services: Services,
        owner: str,
        me: AnyRef,
        post: Post,
        held: Callable[[Path], bool],
    ) -> None:
        self._gw_id = gw_id
        self._services = services
        self._owner = owner
        self._me = me
        self._post = post
        self._held = held
        self._finishing = trio.Lock()
        self._failures: dict[str, int] = {}
        # Finished, and not taken up by the actor yet: nothing for another look.
        self._reported: set[str] = set()
        self._again_at: float | None = None
        self._rng = random.Random()  # noqa: S311 - jitter
        self._transcribing: set[str] = set()
        self._at_work = 0

    @property
    def busy(self) -> bool:
        """Is there work under way that would be lost with the actor?"""
        return self._at_work > 0

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1

    async def finish_all(self) -> None:
        """Finish every recording of this gateway that was not; also those of before a restart."""
        with self._working():
            tried: set[Path] = set()
            for _ in range(LOOKS):
                if await self._finish_closed(tried):
                    return
                await trio.sleep(LOOK_AGAIN)

    def done(self, dump: str) -> None:
        """The actor has kept a recording."""
        self._reported.discard(dump)
        self._failures.pop(dump, None)

    def failed(self, dump: str) -> tuple[int, float | None]:
        """One could not be finished, or not kept: how often so far, and when it is tried again.

        In seconds from now; None when it is given up until something else makes us look.
        """
        self._reported.discard(dump)
        count = self._failures[dump] = self._failures.get(dump, 0) + 1
        return count, AGAIN.delay(count, self._rng) if count < TRIES else None

    async def finish_later(self, seconds: float) -> None:
        """Finish what there is then; all that wait are tried by the first that is due."""
        due = trio.current_time() + seconds
        if self._again_at is not None and self._again_at <= due:
            return
        self._again_at = due
        with self._working():
            await trio.sleep_until(due)
            if self._again_at == due:
                self._again_at = None
                await self.finish_all()

    async def _finish_closed(self, tried: set[Path]) -> bool:
        """Finish what nobody writes to any more, and what was not tried yet; is that all?"""
        complete = True
        async with self._finishing:
            base = (self._services.folder / "recordings" / self._gw_id).resolve()
            for folder in {dump.parent for dump in base.glob("*/dump-*.wav")}:
                recording.take(folder)
            for dump in sorted(base.glob("*/dump-*-dec.wav")):
                if self._held(dump):
                    complete = False
                elif str(dump) not in self._reported and dump not in tried:
                    tried.add(dump)
                    await self._finish(dump)
        return complete

    async def _finish(self, dump: Path) -> None:
        try:
            done = await recording.finish(dump, self._services.registry, self._owner)
        except OSError as error:
            logger.error("recording_unfinished", actor=self._owner, error=str(error))
            failed = RecordingFinished(str(dump), dump.parent.name, "", 0.0, 0, str(error))
            await self._post(failed)
            return
        if done is None:
            recording.discard(dump)
            return
        path, seconds, size = done
        self._reported.add(str(dump))
        await self._post(
            RecordingFinished(str(dump), dump.parent.name, str(path), seconds, size, None)
        )

    async def transcribe_pending(self) -> None:
        """Transcribe, one after the other, what is still to be."""
        store = self._services.store
        for path, _seconds in await store.read(records.pending_transcripts, self._gw_id):
            if path not in self._transcribing:
                self._transcribing.add(path)
                with self._working():
                    await self._transcribe(path)
                self._transcribing.discard(path)

    async def _transcribe(self, path: str) -> None:
        def progress(percent: int) -> None:
            try:
                self._me.tell(TranscriptProgress(path, percent))
            except (ActorDown, MailboxFull) as error:
                logger.debug("progress_dropped", error=str(error))

        settings = self._services.settings().transcribe
        async with _turns():
            error = await transcript.transcribe(
                Path(path), settings, self._services.registry, self._owner, progress
            )
        await self._post(TranscriptDone(path, error))


_limit: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("transcribing")


def _turns() -> trio.CapacityLimiter:
    try:
        return _limit.get()
    except LookupError:
        limiter = trio.CapacityLimiter(TRANSCRIBING_AT_ONCE)
        _limit.set(limiter)
        return limiter
