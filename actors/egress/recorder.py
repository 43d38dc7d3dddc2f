"""One part of a task: every track's sources, mixer and encoder, from the start to the end.

What a source does is no reason to end a part (feed.py). A part ends because somebody wants it to,
because there is nothing more to record, or because an encoder, a mixer or the page broke; then the
worker begins another part.
"""

from __future__ import annotations

from typing import Any

import trio

from actors.egress import encode
from actors.egress.means import End
from actors.egress.mixed import MixedPart
from actors.egress.page import NeverReady, Page, PageEvent, PageLost, PageRequest
from actors.egress.request import Kind
from actors.egress.tracks import Track


class Part(MixedPart):
    """One part, of a channel or of a page."""

    async def run(self) -> End:
        """Record until there is a reason to end; everything is written and gone then."""
        try:
            await trio.to_thread.run_sync(self._prepare)
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

    async def _track(self, track: Track) -> None:
        if self._job.kind is Kind.PAGE:
            await self._page_track(track)
        else:
            await self._mixed_track(track)

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

        page = self._page = Page(
            request, run, means.registry, means.owner, means.allowed, report, reaches=means.reaches
        )
        groups: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_ended_before_begin, nursery)
            ready = trio.Event()
            nursery.start_soon(self._run_page, page, ready)
            await ready.wait()
            if self._ended.is_set():
                nursery.cancel_scope.cancel()
                return
            self.seen = True
            # Chromium overwrites its environment, where the marker of our processes is.
            groups = list(page.groups)
            means.noted(groups, True)
            # Both begin when they are opened, one after the other: not each at zero of its own.
            inputs = page.video_input(job.fps)
            if not job.snapshots:
                # Opening the sound would hold up the first pictures.
                inputs += ["-isync", "0", *page.audio_input, *encode.SMOOTH]
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
        means.noted(groups, False)

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
        except* NeverReady as group:
            # Another part would see the same.
            self._finish(End("failed", str(group.exceptions[0])))
        except* PageLost as group:
            self._finish(End("broken", str(group.exceptions[0])))
        finally:
            ready.set()


def _of_disk(error: BaseException) -> End:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return End("disk_full" if "No space left" in text else "broken", text)
