"""Where a user's picture and sound come from, and the ffmpeg that brings them to the mixer."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.egress.request import Wanted
from config.model import Channel, Source
from supervisor.errors import Rejected

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "http", "https", "file", "test", "gateway")
# A source that says nothing for so long is tried again, in microseconds.
SILENCE = 10_000_000
_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Origin:
    """A user's source with everything filled in. `live`: it sets the pace itself."""

    user: str
    url: str
    listen: bool
    loop: bool
    options: tuple[str, ...]

    @property
    def scheme(self) -> str:
        """What it is."""
        return self.url.partition(":")[0]

    @property
    def ends(self) -> bool:
        """Is it over for good when it ends?"""
        return self.scheme == "file" and not self.loop


def fields(app_id: str, task_id: str, wanted: Wanted, payload: Mapping[str, Any]) -> dict[str, str]:
    """What a task brings for the fields of an address, beside channel and user."""
    return {
        "app_id": app_id,
        "task_id": task_id,
        "access_token": wanted.access_token,
        "workerUid": str(payload.get("workerUid", "")),
    }


def origins(
    channels: Mapping[str, Channel], wanted: Wanted, fields: Mapping[str, str]
) -> list[Origin]:
    """The sources of a channel's users, in the order of the request; all of them without one.

    Raises Rejected `not_configured` for a channel or a user that nothing is known of, `invalid`
    for a value that cannot be part of an address.
    """
    channel = channels.get(wanted.channel) or channels.get("*")
    if channel is None:
        known = ", ".join(sorted(channels)) or "none"
        raise Rejected(
            "not_configured",
            f"channel {wanted.channel!r} has no sources: see egress.channels (there are: {known})",
        )
    users = wanted.users or [name for name in channel.users if name != "*"]
    if wanted.layout == "customized":
        users = [u for u in users if any(r.user == u for r in wanted.regions)] or [
            region.user for region in wanted.regions
        ]
    if not users:
        raise Rejected("not_configured", "name the users: the channel has only a pattern")
    found = []
    for user in users:
        source = channel.users.get(user) or channel.users.get("*")
        if source is None:
            raise Rejected(
                "not_configured", f"user {user!r} has no source in channel {wanted.channel!r}"
            )
        found.append(_fill(source, user, {**fields, "channel": wanted.channel, "user": user}))
    if wanted.layout == "spotlight" and wanted.spotlight and wanted.spotlight not in users:
        raise Rejected("invalid", "payload.spotlight: not one of the channel's users")
    return found


def _fill(source: Source, user: str, fields: Mapping[str, str]) -> Origin:
    """What a client sends is never more than one piece of the address, or of the path."""
    file = source.url.startswith("file:")

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name not in fields:
            return match[0]
        value = fields[name]
        # What is refused is not repeated: it may be the access token.
        if value in (".", "..") or not value.isprintable():
            raise Rejected("invalid", f"{name}: it cannot be part of an address")
        if not file:
            return urllib.parse.quote(value, safe="")
        if "/" in value:
            raise Rejected("invalid", f"{name}: it cannot be part of a path")
        return value

    # In one go: what a client sends is not looked at for fields again.
    url = _FIELD.sub(value_of, source.url)
    return Origin(user, url, source.listen, source.loop, tuple(source.options))


@dataclass(frozen=True, slots=True)
class Shape:
    """What the mixer wants: the sizes of the picture, its rate, and the sound's form."""

    sizes: tuple[tuple[int, int], ...]
    fps: int
    rate: int
    channels: int
    label: str = ""


def feed_arguments(
    origin: Origin,
    shape: Shape,
    pipes: list[Path],
    sound: Path,
    *,
    picture: bool,
    audible: bool,
    tail: tuple[Path, list[str]] | None = None,
) -> list[str]:
    """ffmpeg's: decode one source, scale it to each size, and write raw frames and samples.

    `picture` and `audible` say what the source has; `tail` is a growing file of a gateway's call
    with its format.
    """
    arguments = ["ffmpeg", "-nostdin", "-v", "warning", "-nostats", "-y"]
    # A decoder keeps back a picture for each of its threads: with many, a live one is seconds late.
    arguments += ["-progress", "pipe:1", "-stats_period", "1", "-threads", "2"]
    arguments += _input(origin, shape, tail)
    if picture:
        arguments += ["-filter_complex", _pictures(shape, len(pipes))]
        for i, pipe in enumerate(pipes):
            arguments += ["-map", f"[v{i}]", "-f", "rawvideo", f"file:{pipe}"]
    if audible:
        # Gaps in the source's sound stay gaps; both begin at the source's zero.
        arguments += ["-map", "0:a:0", "-af", "aresample=async=1000:first_pts=0"]
        arguments += ["-ar", str(shape.rate), "-ac", str(shape.channels)]
        arguments += ["-f", "s16le", "-flush_packets", "1", f"file:{sound}"]
    return arguments


def _pictures(shape: Shape, count: int) -> str:
    splits = "".join(f"[s{i}]" for i in range(count))
    chain = f"[0:v:0]fps={shape.fps}:start_time=0,split={count}{splits}"
    for i, (width, height) in enumerate(shape.sizes):
        label = f",{label_filter(shape.label, height)}" if shape.label else ""
        chain += (
            f";[s{i}]scale={width}:{height}:force_original_aspect_ratio=decrease"
            f":force_divisible_by=2,pad={width}:{height}:(ow-iw)/2:(oh-ih)/2,setsar=1"
            f",format=yuv420p{label}[v{i}]"
        )
    return chain


def label_filter(text: str, height: int) -> str:
    """A user's name at the lower left, as a filter. The text can hold anything."""
    size = max(height // 14, 12)
    return (
        f"drawtext=text={escape(text)}:expansion=none:fontsize={size}:fontcolor=white"
        f":box=1:boxcolor=black@0.5:boxborderw=6:x=10:y=h-th-12"
    )


def escape(text: str) -> str:
    """A text as a filter's option inside a graph: two levels of escaping (ffmpeg-filters(1))."""
    once = "".join(f"\\{c}" if c in "\\':" else c for c in text)
    return "".join(f"\\{c}" if c in "\\'[],;" else c for c in once)


def _input(origin: Origin, shape: Shape, tail: tuple[Path, list[str]] | None) -> list[str]:
    options = list(origin.options)
    match origin.scheme:
        case "test":
            return ["-re", "-f", "lavfi", "-i", test_source(origin.url, shape.fps)]
        case "gateway":
            assert tail is not None
            return [*tail[1], "-follow", "1", "-re", "-i", f"file:{tail[0]}"]
        case "file":
            again = ["-stream_loop", "-1"] if origin.loop else []
            path = origin.url.removeprefix("file:")
            return ["-re", *again, *options, "-i", f"file:{path}"]
        case "rtsp" | "rtsps":
            how = ["-rtsp_flags", "listen"] if origin.listen else ["-rtsp_transport", "tcp"]
            return [*how, "-timeout", str(SILENCE), *options, "-i", origin.url]
        case "rtmp" | "rtmps":
            how = ["-listen", "1"] if origin.listen else []
            return [*how, "-rw_timeout", str(SILENCE), *options, "-i", origin.url]
        case "srt":
            mode = "listener" if origin.listen else "caller"
            joint = "&" if "?" in origin.url else "?"
            return [*options, "-i", f"{origin.url}{joint}mode={mode}&timeout={SILENCE}"]
        case _:
            return ["-rw_timeout", str(SILENCE), *options, "-i", origin.url]


def test_source(url: str, fps: int) -> str:
    """A moving picture and a beep each second; another pitch for another number."""
    number = sum(url.encode()) % 7
    frequency = 330 + 110 * number
    return (
        f"testsrc2=size=640x360:rate={fps}[out0];"
        f"sine=frequency={frequency}:beep_factor=2:sample_rate=48000[out1]"
    )


def card_arguments(
    text: str, sizes: list[tuple[int, int]], folder: Path, name: str
) -> tuple[list[str], list[Path]]:
    """ffmpeg's, to draw one still card in each size; and where they will be."""
    arguments = ["ffmpeg", "-nostdin", "-v", "error", "-y"]
    paths = []
    for width, height in sizes:
        path = folder / f"{name}-{width}x{height}.card"
        graph = (
            f"color=c=0x202428:s={width}x{height}:r=1:d=1,drawtext=text={escape(text)}"
            f":expansion=none:fontsize={max(height // 10, 12)}:fontcolor=0xd0d4d8"
            ":x=(w-tw)/2:y=(h-th)/2,format=yuv420p"
        )
        arguments += ["-f", "lavfi", "-i", graph]
        paths.append(path)
    for i, path in enumerate(paths):
        arguments += ["-map", f"{i}:v", "-frames:v", "1", "-f", "rawvideo", f"file:{path}"]
    return arguments, paths
