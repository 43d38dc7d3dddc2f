"""What an encoder says of its work (`-progress`), and whether it gets on."""

from __future__ import annotations

import math

import msgspec


class Progress(msgspec.Struct, frozen=True):
    """Of one encoder: `seconds` of what it made, `bitrate` in kbit/s, `speed` 1.0 is real time."""

    frames: int = 0
    fps: float = 0.0
    seconds: float = 0.0
    bitrate: float = 0.0
    bytes: int = 0
    dropped: int = 0
    duplicated: int = 0
    speed: float = 0.0


def _number(text: str) -> float:
    try:
        number = float(text.strip().removesuffix("x").removesuffix("kbits/s"))
    except ValueError:
        return 0.0  # `N/A`, which is what it says before it knows
    # A rate over no time is `nan` or `inf`.
    return number if math.isfinite(number) else 0.0


class ProgressReader:
    """Takes the lines `name=value` of ffmpeg's progress; each block ends with `progress=`."""

    def __init__(self) -> None:
        self._block: dict[str, str] = {}
        self.last = Progress()

    def take(self, line: str) -> Progress | None:
        """A line; the progress when it ends a block."""
        name, equals, value = line.partition("=")
        if not equals:
            return None
        if name != "progress":
            if len(self._block) < 64:
                self._block[name] = value
            return None
        block, self._block = self._block, {}

        def number(key: str) -> float:
            return _number(block.get(key, "0"))

        self.last = Progress(
            frames=int(number("frame")),
            fps=number("fps"),
            seconds=max(number("out_time_us") / 1e6, 0.0),
            bitrate=number("bitrate"),
            bytes=int(number("total_size")),
            dropped=int(number("drop_frames")),
            duplicated=int(number("dup_frames")),
            speed=number("speed"),
        )
        return self.last


def add(one: Progress, other: Progress) -> Progress:
    """Of two encoders that work at the same time: bytes and frames add up, time does not."""
    return Progress(
        frames=one.frames + other.frames,
        fps=max(one.fps, other.fps),
        seconds=max(one.seconds, other.seconds),
        bitrate=one.bitrate + other.bitrate,
        bytes=one.bytes + other.bytes,
        dropped=one.dropped + other.dropped,
        duplicated=one.duplicated + other.duplicated,
        speed=min(one.speed, other.speed)
        if one.speed and other.speed
        else one.speed or other.speed,
    )


def sized(progress: Progress, written: int, before: Progress) -> Progress:
    """With what is on the disk: an encoder that writes many files does not count their bytes."""
    passed = progress.seconds - before.seconds
    rate = (written - before.bytes) * 8 / 1000 / passed if passed > 0 else before.bitrate
    smooth = rate if not before.bitrate else before.bitrate * 0.8 + rate * 0.2
    return msgspec.structs.replace(progress, bytes=written, bitrate=round(max(smooth, 0.0), 1))
