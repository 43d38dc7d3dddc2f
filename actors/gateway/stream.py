"""The call's sound as an RTMP stream, under a still picture.

The sound is taken from the file that baresip writes while it talks (ffmpeg follows it as it
grows). A destination that is away is tried again, with backoff, for as long as the call lasts.
"""

from __future__ import annotations

import fnmatch
import random
import urllib.parse
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from actors.gateway import recording
from config.model import Stream
from supervisor.backoff import Backoff
from supervisor.errors import Rejected
from supervisor.orphans import Registry
from supervisor.process import Command, Process

AGAIN = Backoff(first=0.5, cap=10.0, healthy_after=30.0)
# How often it is looked whether the call's file has begun, in seconds.
LOOK_EVERY = 0.1
# What ffmpeg gets to send its last frames when the call is over, in seconds.
FLUSH = 2.0


Report = Callable[[str, str], Awaitable[None]]


@dataclass(eq=False, slots=True)
class Streaming:
    """One call's stream: `over` ends it, `done` says that it has ended.

    `told` once the log has anything of it: what has begun there also ends there.
    """

    over: trio.Event = field(default_factory=trio.Event)
    done: trio.Event = field(default_factory=trio.Event)
    told: bool = False


def check_destination(url: str, hosts: list[str]) -> None:
    """Refuse what is not RTMP to an allowed host. Raises Rejected `invalid`."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
        parts = urllib.parse.SplitResult("", "", "", "", "")
    if parts.scheme not in ("rtmp", "rtmps") or not host:
        raise Rejected("invalid", "rtmp_dst: expected rtmp://host/app/stream or rtmps://…")
    if not any(fnmatch.fnmatch(host, pattern) for pattern in hosts):
        raise Rejected("invalid", f"rtmp_dst: the host {host!r} is not in gateways.stream_hosts")


def arguments(sound: Path, form: recording.Format, settings: Stream, url: str) -> list[str]:
    """The argument list for ffmpeg."""
    size = f"{settings.width}x{settings.height}"
    if settings.picture:
        picture = ["-loop", "1", "-framerate", str(settings.rate), "-i", f"file:{settings.picture}"]
        scale = ["-vf", f"scale={settings.width}:{settings.height}"]
    else:
        picture = ["-f", "lavfi", "-i", f"smptebars=size={size}:rate={settings.rate}"]
        scale = []
    return [
        "ffmpeg",
        "-nostdin",
        "-nostats",
        "-progress",
        "pipe:1",
        "-v",
        "error",
        "-re",
        *picture,
        "-f",
        "s16le",
        "-ar",
        str(form.rate),
        "-ac",
        str(form.channels),
        "-skip_initial_bytes",
        str(recording.HEADER),
        "-follow",
        "1",
        "-i",
        f"file:{sound}",
        *scale,
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-tune",
        "stillimage",
        "-pix_fmt",
        "yuv420p",
        "-g",
        str(settings.rate * 2),
        "-c:a",
        "aac",
        "-b:a",
        "64k",
        "-ar",
        "44100",
        "-f",
        "flv",
        url,
    ]


async def _sound(folder: Path) -> tuple[Path, recording.Format]:
    """The newest call's file, once it has begun. There is no event to wait for: it is a file."""
    while True:
        for path in reversed(recording.dumps(folder)):
            form = recording.wav_format(path)
            if form is not None:
                return path, form
        await trio.sleep(LOOK_EVERY)


async def stream(
    folder: Path,
    settings: Stream,
    url: str,
    registry: Registry,
    owner: str,
    over: trio.Event,
    report: Report,
) -> None:
    """Stream the newest call in a folder until `over` is set; what was sent is then complete.

    Reports `started` whenever the first of it has been sent, and `failed`, with the reason,
    whenever it breaks off or does not come to that.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when, over, nursery)
        sound, form = await _sound(folder)
        nursery.cancel_scope.cancel()
    if over.is_set():
        return
    command = Command(arguments(sound, form, settings, url), owner=owner)
    failures, rng = 0, random.Random()  # noqa: S311 - jitter
    while not over.is_set():
        began = trio.current_time()
        why = await _send(command, registry, over, report)
        if over.is_set():
            return
        failures = AGAIN.failures_after(failures, trio.current_time() - began)
        await report("failed", why)
        with trio.move_on_after(AGAIN.delay(failures, rng)):
            await over.wait()


async def _send(command: Command, registry: Registry, over: trio.Event, report: Report) -> str:
    """Run ffmpeg until it ends or the call is over; how it ended."""
    sending = trio.Event()
    said: deque[str] = deque(maxlen=1)

    def progress(line: str) -> None:
        name, _, value = line.partition("=")
        # Until then it has connected at most.
        if name == "out_time_us" and value.isdigit() and int(value) > 0:
            sending.set()

    process = Process(command, registry, progress, said.append)

    async def tell() -> None:
        await sending.wait()
        await report("started", "")

    async def end() -> None:
        await over.wait()
        await process.stop(FLUSH)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        nursery.start_soon(end)
        try:
            ended = await process.run()
            why = f"ffmpeg {ended}: {' '.join(said)}"
        except OSError as error:
            why = f"ffmpeg cannot be started: {error.strerror}"
        nursery.cancel_scope.cancel()
    return why


async def _cancel_when(over: trio.Event, nursery: trio.Nursery) -> None:
    await over.wait()
    nursery.cancel_scope.cancel()
