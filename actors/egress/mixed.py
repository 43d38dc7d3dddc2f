"""A part of a channel: a feed for each user, a mixer, an encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from actors.egress import encode, layout
from actors.egress.encoding import Encoding
from actors.egress.feed import Feed
from actors.egress.layout import Cell
from actors.egress.means import End
from actors.egress.mix import Mix
from actors.egress.sources import Shape, card_arguments
from actors.egress.tracks import Track
from supervisor.log import logger
from supervisor.process import Command, Process


class MixedPart(Encoding):
    """The tracks of a channel."""

    async def show(self, user: str) -> None:
        """Make another user the large one, from the next frame on."""
        self.spotlight = user
        for track, mix in self._mixes:
            await mix.cells(self._cells(track))

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
