"""What a client asks for, checked and brought into the form the workers use.

Shapes are those of contracts/egress.md; what it leaves open is in DECISIONS.md.
"""

from __future__ import annotations

import enum
import urllib.parse
from typing import Annotated, Any, Literal

import msgspec

from actors.egress import pattern
from supervisor.errors import Rejected
from supervisor.log import MASK, is_secret

MAX_USERS = 25
FORMATS = ("hls", "mp4", "ts", "mkv")
MAX_TEXT = 2048


class Kind(enum.Enum):
    """What a task costs goes by its kind."""

    RECORD = "record"
    SNAPSHOT = "snapshot"
    PAGE = "page"


Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


def _between(least: int, most: int) -> Any:
    return msgspec.Meta(ge=least, le=most)


class Video(msgspec.Struct, frozen=True, rename="camel"):
    """Pixels, frames a second, kbit/s."""

    width: Annotated[int, _between(64, 3840)] = 1280
    height: Annotated[int, _between(64, 2160)] = 720
    frame_rate: Annotated[int, _between(1, 60)] = 30
    bitrate: Annotated[int, _between(32, 50_000)] = 1000


class Audio(msgspec.Struct, frozen=True, rename="camel"):
    """Hertz, channels, kbit/s."""

    sample_rate: Literal[8000, 16000, 22050, 24000, 32000, 44100, 48000] = 48000
    channels: Annotated[int, _between(1, 2)] = 2
    bitrate: Annotated[int, _between(8, 512)] = 128


class Region(msgspec.Struct, frozen=True):
    """A user's rectangle in a `customized` layout, in pixels."""

    user: Name
    x: Annotated[int, _between(0, 3840)]
    y: Annotated[int, _between(0, 2160)]
    width: Annotated[int, _between(16, 3840)]
    height: Annotated[int, _between(16, 2160)]


class WebRecorder(msgspec.Struct, frozen=True):
    """The other place where clients put the page's address."""

    url: Text = ""


class Wanted(msgspec.Struct, frozen=True):
    """`payload` of a start. What is not listed is kept and shown again, and has no effect."""

    layout: Literal["flat", "spotlight", "customized", "freestyle", "individual"] = "flat"
    channel: Annotated[str, msgspec.Meta(max_length=128)] = ""
    access_token: Text = ""
    users: Annotated[list[Name], msgspec.Meta(max_length=MAX_USERS)] = []
    filename_pattern: Text = "{task_id}"
    format: str | list[str] = "hls"
    video: Video = Video()
    audio: Audio = Audio()
    url: Text = ""
    web_recorder: WebRecorder = WebRecorder()
    web_gl: bool = msgspec.field(default=False, name="webGL")
    # The page is ready when it is loaded, or when it says so in its console.
    ready: Literal["load", "console"] = "load"
    interval_in_ms: Annotated[int, _between(200, 86_400_000)] | None = None
    max_duration: Annotated[float, msgspec.Meta(gt=0)] | None = None
    rtmp_dst: Text = ""
    individual: bool = False
    names: bool = False
    spotlight: str = ""
    regions: Annotated[list[Region], msgspec.Meta(max_length=MAX_USERS)] = []

    @property
    def page(self) -> str:
        """The page's address, from either place."""
        return self.url or self.web_recorder.url

    @property
    def formats(self) -> list[str]:
        """Each once, in the order asked for; empty where only `rtmp_dst` is wanted."""
        wanted = [self.format] if isinstance(self.format, str) else self.format
        return [f for f in dict.fromkeys(wanted) if f != "none"]

    @property
    def apart(self) -> bool:
        """One file for each user?"""
        return self.individual or self.layout == "individual"


def understand(cmd: str, payload: dict[str, Any]) -> tuple[Kind, Wanted]:
    """Check a start as a whole. Raises Rejected `invalid` with what is wrong, by field."""
    try:
        wanted = msgspec.convert(payload, Wanted)
    except msgspec.ValidationError as error:
        raise _bad(f"payload: {error}") from error
    if cmd == "record":
        # A snapshot's field; whatever goes by it makes pictures.
        wanted = msgspec.structs.replace(wanted, interval_in_ms=None)
    _check_output(cmd, wanted)
    if wanted.layout == "freestyle":
        if not wanted.page:
            raise _bad("payload.url: the layout `freestyle` needs a page's address")
        return (Kind.PAGE, wanted)
    if not wanted.channel:
        raise _bad("payload.channel: expected a channel's name")
    _check_users(wanted)
    return (Kind.SNAPSHOT if cmd == "snapshot" else Kind.RECORD, wanted)


def _check_output(cmd: str, wanted: Wanted) -> None:
    try:
        pattern.check(wanted.filename_pattern)
    except pattern.PatternError as error:
        raise _bad(f"payload.filename_pattern: {error}") from error
    if wanted.video.width % 2 or wanted.video.height % 2:
        raise _bad("payload.video: width and height must be even")
    if cmd == "snapshot":
        if wanted.interval_in_ms is None:
            raise _bad("payload.interval_in_ms: a snapshot needs it, in milliseconds")
        return
    for name in wanted.formats:
        if name not in FORMATS:
            raise _bad(f"payload.format: expected one or more of {', '.join(FORMATS)}")
    if not wanted.formats and not wanted.rtmp_dst:
        raise _bad("payload.format: `none` needs an rtmp_dst")


def _check_users(wanted: Wanted) -> None:
    if len(set(wanted.users)) != len(wanted.users):
        raise _bad("payload.users: a user is named twice")
    if not wanted.channel.isprintable() or not all(u.isprintable() for u in wanted.users):
        raise _bad("payload: channel and users are printable text")
    if wanted.layout == "customized":
        if not wanted.regions:
            raise _bad("payload.regions: the layout `customized` needs a rectangle for each user")
        if len({region.user for region in wanted.regions}) != len(wanted.regions):
            raise _bad("payload.regions: a user has two rectangles")
        for region in wanted.regions:
            right, bottom = region.x + region.width, region.y + region.height
            if right > wanted.video.width or bottom > wanted.video.height:
                raise _bad(f"payload.regions: the rectangle of {region.user!r} is outside")
    if wanted.spotlight and wanted.users and wanted.spotlight not in wanted.users:
        raise _bad("payload.spotlight: not one of `users`")


def _bad(message: str) -> Rejected:
    return Rejected("invalid", message)


def shown(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload as it may be seen by everybody: secrets are masked, in addresses too."""
    return {name: _shown(name, value) for name, value in payload.items()}


def _shown(name: str, value: Any) -> Any:
    if is_secret(name):
        return MASK if value not in (None, "", False) else value
    if isinstance(value, dict):
        return shown(value)
    if isinstance(value, list):
        return [_shown(name, v) for v in value]
    return hide_address(value) if isinstance(value, str) and "://" in value else value


def hide_address(address: str) -> str:
    """An address without what opens doors: its user, its query, an RTMP stream's key."""
    try:
        parts = urllib.parse.urlsplit(address)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return MASK
    path = parts.path
    if not (parts.scheme and host) or "@" in path:
        return MASK  # it holds an address, and is none itself
    if parts.scheme in ("rtmp", "rtmps", "srt"):
        *app, key = path.rstrip("/").split("/")
        path = "/".join([*app, MASK]) if key else path
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{port}{path}" + (f"?{MASK}" if parts.query else "")
