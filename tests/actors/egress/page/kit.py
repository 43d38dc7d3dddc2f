"""A page that is shown, what it tells, what of it is seen and heard, and what it must not leave."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy
import pytest
import trio

from actors.egress.page import Page, PageEvent, PageLost, PageRequest
from actors.egress.page.place import LINK
from actors.egress.page.screen import SOCKETS
from actors.egress.page.sound import RATE
from supervisor import guardian
from supervisor.orphans import Registry
from tests.supervisor.procs import registry

WIDTH, HEIGHT = 640, 360
# A port that nobody listens on, and that Chromium has nothing against.
NOBODY = 2


def everything(_url: str) -> bool:
    return True


class Shown:
    """One page and what it told."""

    def __init__(
        self, folder: Path, url: str, allowed: Callable[[str], bool], of: Registry, **wanted: Any
    ) -> None:
        self.of = of
        self.folder = folder
        self.events: list[PageEvent] = []
        self.outcome: str | PageLost | None = None
        self.groups: list[int] = []
        self._more = trio.Event()
        request = PageRequest(url, **{"width": WIDTH, "height": HEIGHT, **wanted})
        self.page = Page(request, folder, of, "/test", allowed, self._take)

    def _take(self, event: PageEvent) -> None:
        self.events.append(event)
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        started = False

        class Status:
            def started(self, _page: Page) -> None:
                nonlocal started
                started = True
                task_status.started()

        try:
            self.outcome = await self.page.run(Status())  # type: ignore[arg-type]
        except PageLost as error:
            if not started:
                raise
            self.outcome = error
        self._wake()

    def told(self, kind: str) -> list[dict[str, object]]:
        return [event.data for event in self.events if event.kind == kind]

    @property
    def said(self) -> list[object]:
        """The lines of its console."""
        return [data["text"] for data in self.told("console")]

    async def until(self, kind: str, count: int = 1) -> list[dict[str, object]]:
        """Data of the events of a kind, when there are so many."""
        while len(self.told(kind)) < count:
            await self._more.wait()
        return self.told(kind)

    async def says(self, text: str) -> None:
        while text not in self.said:
            await self._more.wait()

    async def over(self) -> str:
        """The reason of its end, as it says itself."""
        while self.outcome is None:
            await self._more.wait()
        assert isinstance(self.outcome, str), self.outcome
        return self.outcome

    async def lost(self) -> str:
        """Why it was lost."""
        while self.outcome is None:
            await self._more.wait()
        assert isinstance(self.outcome, PageLost), self.outcome
        return str(self.outcome)

    def pids(self, kind: str) -> list[int]:
        """Its Chromium's processes of a type, as Chromium names them."""
        wanted = f"--type={kind}".encode()
        found = []
        for pid in guardian.members(self.page.groups[-1]):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b" ", b"\0")
            if wanted in arguments.split(b"\0"):
                found.append(pid)
        return found


@asynccontextmanager
async def shown(
    folder: Path,
    url: str,
    allowed: Callable[[str], bool] = everything,
    of: Registry | None = None,
    **wanted: Any,
) -> AsyncIterator[Shown]:
    """A page, shown until the end of the block. Raises PageLost when it does not get ready."""
    one = Shown(folder, url, allowed, of or registry(), **wanted)
    lost: PageLost | None = None
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(one.run)
            except PageLost as error:
                # Out of the nursery it would come as a group.
                lost = error
            else:
                private = (folder / LINK).readlink()
                one.groups = one.page.groups
                yield one
                nursery.cancel_scope.cancel()
    nothing_is_left(one)
    if lost is not None:
        raise lost
    assert not private.exists()


async def not_shown(folder: Path, url: str, **wanted: Any) -> str:
    """Why a page did not get ready."""
    with pytest.raises(PageLost) as caught:
        async with shown(folder, url, **wanted):
            raise AssertionError("it got ready")
    return str(caught.value)


def nothing_is_left(one: Shown) -> None:
    """No process, no socket, no file."""
    assert one.of.groups == {}
    assert marked(one.of) == []
    # Chromium overwrites the environment that the marker is in.
    assert [guardian.members(group) for group in one.groups if guardian.members(group)] == []
    assert list(one.folder.iterdir()) == []
    screen = getattr(one.page, "_screen", None)
    if screen is not None and screen._number is not None:
        # Another may have the number by now, and then it answers.
        path = SOCKETS / f"X{screen._number}"
        with socket.socket(socket.AF_UNIX) as probe:
            assert not path.exists() or probe.connect_ex(str(path)) == 0


def marked(of: Registry) -> list[int]:
    """Processes that carry the marker of this appliance."""
    marker = of.marker.encode()
    return [int(n) for n in os.listdir("/proc") if n.isdigit() and guardian.marked(int(n), marker)]


# -- seen and heard -------------------------------------------------------------------


async def _kill(process: trio.Process) -> None:
    """It does not end by itself while nobody reads what it writes."""
    process.kill()


@asynccontextmanager
async def ffmpeg(page: Page, arguments: list[str]) -> AsyncIterator[trio.abc.ReceiveStream]:
    """What an ffmpeg with these inputs and outputs writes."""
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            lambda task_status: trio.run_process(
                ["ffmpeg", "-nostdin", "-v", "error", *arguments, "pipe:1"],
                env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **page.environment},
                stdout=subprocess.PIPE,
                check=False,
                deliver_cancel=_kill,
                task_status=task_status,
            )
        )
        assert process.stdout is not None
        yield process.stdout
        nursery.cancel_scope.cancel()


class _Blocks:
    """A stream in pieces of one size."""

    def __init__(self, stream: trio.abc.ReceiveStream, size: int) -> None:
        self._stream = stream
        self._size = size
        self._data = b""

    async def next(self) -> bytes:
        while len(self._data) < self._size:
            more = await self._stream.receive_some()
            assert more, "ffmpeg ended"
            self._data += more
        block, self._data = self._data[: self._size], self._data[self._size :]
        return block


class Picture:
    """One frame."""

    def __init__(self, data: bytes, width: int) -> None:
        self.data = data
        self._width = width

    def at(self, x: int, y: int) -> str:
        """The colour there, as in CSS."""
        start = (y * self._width + x) * 3
        return f"#{self.data[start : start + 3].hex()}"

    def all_of(self, colour: str) -> bool:
        """Is it one colour from edge to edge?"""
        return self.data == bytes.fromhex(colour[1:]) * (len(self.data) // 3)


async def seen(page: Page, like: Callable[[Picture], bool]) -> Picture:
    """The first picture that is like that."""
    output = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    async with ffmpeg(page, [*page.video_input(25), *output]) as stream:
        width = page.wanted.width
        blocks = _Blocks(stream, width * page.wanted.height * 3)
        while not like(picture := Picture(await blocks.next(), width)):
            continue
    return picture


async def heard(page: Page, like: Callable[[float, float], bool]) -> tuple[float, float]:
    """Loudness (RMS, 1 is full) and pitch (Hz) of the first half second that is like that."""
    output = ["-f", "s16le", "-ac", "1", "-ar", str(RATE)]
    async with ffmpeg(page, [*page.audio_input, *output]) as stream:
        blocks = _Blocks(stream, RATE)
        while True:
            samples = numpy.frombuffer(await blocks.next(), dtype="<i2") / 32768
            loudness = float(numpy.sqrt(numpy.mean(samples**2)))
            # The strongest frequency: a gap of a busy machine does not move it.
            strengths = numpy.abs(numpy.fft.rfft(samples * numpy.hanning(len(samples))))
            pitch = int(numpy.argmax(strengths)) * RATE / len(samples)
            if like(loudness, pitch):
                break
    return loudness, pitch
