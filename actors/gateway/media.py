"""What becomes of a gateway's sound: finished recordings, their transcripts, the RTMP stream.

Runs in the actor's nursery and reports to it; the actor keeps the figures.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from actors.gateway import recording, records, transcript
from actors.gateway.messages import RecordingFinished, TranscriptDone, TranscriptProgress
from actors.gateway.services import Services
from supervisor.errors import ActorDown, MailboxFull
from supervisor.log import logger
from supervisor.ref import AnyRef

Post = Callable[[RecordingFinished | TranscriptDone], Awaitable[None]]

# Recordings of one appliance that are transcribed at once: it takes a core each.
TRANSCRIBING_AT_ONCE = 1
# A call's end is told a moment before its file is closed: how often, and after how many seconds,
# it is looked again. What is still open then belongs to a call that goes on.
LOOKS, LOOK_AGAIN = 4, 0.5


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
            for _ in range(LOOKS):
                if await self._finish_closed():
                    return
                await trio.sleep(LOOK_AGAIN)

    async def _finish_closed(self) -> bool:
        """Finish what nobody writes to any more; is that all?"""
        complete = True
        async with self._finishing:
            base = (self._services.folder / "recordings" / self._gw_id).resolve()
            for folder in {dump.parent for dump in base.glob("*/dump-*.wav")}:
                recording.take(folder)
            for dump in sorted(base.glob("*/dump-*-dec.wav")):
                if self._held(dump):
                    complete = False
                else:
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
