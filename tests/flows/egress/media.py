"""What recordings are made of here, and what is seen and heard in them when they are decoded."""

from __future__ import annotations

import itertools
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import numpy.typing

Frames = numpy.typing.NDArray[numpy.uint8]
Samples = numpy.typing.NDArray[numpy.float64]
Json = dict[str, Any]

RATE = 16000  # of decoded sound
BEEP = 1000  # hertz
# How far an encoded colour may be from what was drawn, of 255.
NEAR = 40

COLOURS = {
    "red": (255, 0, 0),
    "lime": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "white": (255, 255, 255),
}
# Hertz: none is a harmonic of another.
TONES = {"red": 440, "lime": 700, "blue": 1130, "yellow": 1510, "white": 1930}


def ffmpeg(*arguments: str | Path, within: float = 60.0) -> bytes:
    """What it writes to its standard output."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=within, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def probe(path: Path | str, *arguments: str) -> Json:
    """What ffprobe tells of a file."""
    command = ["ffprobe", "-v", "error", *arguments, "-of", "json", str(path)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: Json = json.loads(done.stdout)
    return found


# -- sources ----------------------------------------------------------------------------

_QUICK = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")


def beeping(path: Path, seconds: float, *, size: str = "320x180", fps: int = 25) -> Path:
    """A bar that moves below; above, a flash each second, and a beep at the same moment."""
    width, _, height = size.partition("x")
    half = int(height) // 2
    picture = (
        f"color=black:s={size}:r={fps},"
        f"drawbox=h={half}:color=white:t=fill:enable='lt(mod(t,1),0.16)'[a];"
        f"color=gray:s=20x{half}:r={fps}[bar];"
        f"[a][bar]overlay=x='mod(t*100,{width})':y={half}:shortest=1[v]"
    )
    sound = f"aevalsrc='0.5*lt(mod(t,1),0.16)*sin(2*PI*{BEEP}*t)':s=48000[s]"
    ffmpeg(
        *("-filter_complex", f"{picture};{sound}", "-map", "[v]", "-map", "[s]"),
        *("-t", f"{seconds}", "-g", f"{fps}", *_QUICK, str(path)),
    )
    return path


def coloured(
    path: Path, colour: str, seconds: float, size: str = "160x90", extra: Sequence[str] = ()
) -> Path:
    """One colour and one tone; both are known by the colour's name."""
    ffmpeg(
        *("-f", "lavfi", "-i", f"color={colour}:s={size}:r=5"),
        *("-f", "lavfi", "-i", f"sine=frequency={TONES[colour]}:sample_rate=48000"),
        *("-t", f"{seconds}", "-g", "5", *_QUICK, *extra, str(path)),
    )
    return path


# -- eyes -------------------------------------------------------------------------------


def pictures(path: Path | str, fps: float = 10, width: int = 160, height: int = 90) -> Frames:
    """The frames of any file, by the clock: (number, row, column, red green blue)."""
    raw = ffmpeg(
        *("-i", path, "-vf", f"fps={fps}:start_time=0,scale={width}:{height}"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"),
    )
    return numpy.frombuffer(raw, numpy.uint8).reshape(-1, height, width, 3)


def photo(path: Path) -> Frames:
    """A single picture: (row, column, red green blue)."""
    video = kinds(path)["video"]
    raw = ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1")
    return numpy.frombuffer(raw, numpy.uint8).reshape(video["height"], video["width"], 3)


def colour_at(frame: Frames, x: float, y: float) -> str:
    """The name of the colour at a place, given as shares of width and height; else its numbers."""
    height, width = frame.shape[:2]
    column, row = int(x * width), int(y * height)
    spot = frame[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3].reshape(-1, 3)
    seen = spot.mean(axis=0)
    for name, wanted in COLOURS.items():
        if all(abs(a - b) <= NEAR for a, b in zip(seen, wanted, strict=True)):
            return name
    return "dark" if seen.max() < 80 else str([round(float(v)) for v in seen])


def in_gray(frame: Frames, x: float, y: float, width: float, height: float) -> Frames:
    """A rectangle of a frame, given as shares, as gray levels."""
    high, wide = frame.shape[:2]
    part = frame[int(y * high) : int((y + height) * high), int(x * wide) : int((x + width) * wide)]
    gray: Frames = part.mean(axis=2).astype(numpy.uint8)
    return gray


def picture_times(path: Path | str) -> list[float]:
    """When each frame is shown, in seconds, in order."""
    shown = probe(path, "-select_streams", "v:0", "-show_entries", "packet=pts_time")
    return sorted(float(p["pts_time"]) for p in shown["packets"])


def uneven(path: Path | str, fps: int) -> float:
    """By how much the distance of two frames differs at most from an even pace, in seconds."""
    times = picture_times(path)
    return max(abs(b - a - 1 / fps) for a, b in itertools.pairwise(times))


# -- ears -------------------------------------------------------------------------------


def sound(path: Path | str) -> Samples:
    """The samples of any file, by the clock, as mono between -1 and 1."""
    raw = ffmpeg(
        *("-i", path, "-af", "aresample=async=1:first_pts=0"),
        *("-f", "s16le", "-ac", "1", "-ar", str(RATE), "pipe:1"),
    )
    return numpy.frombuffer(raw, numpy.int16).astype(numpy.float64) / 32768


def loudness(samples: Samples, hertz: float) -> float:
    """The amplitude of one frequency (Goertzel's, as one product)."""
    if not len(samples):
        return 0.0
    turn = numpy.exp(-2j * numpy.pi * hertz / RATE * numpy.arange(len(samples)))
    return float(2 * abs(numpy.dot(samples, turn)) / len(samples))


def heard(samples: Samples) -> set[str]:
    """The colours whose tones are there."""
    return {name for name, hertz in TONES.items() if loudness(samples, hertz) > 0.02}


def beeps(path: Path | str) -> list[float]:
    """The seconds at which the beep begins."""
    return _beeps(sound(path))


def _beeps(samples: Samples) -> list[float]:
    step = RATE // 100
    loud = [
        loudness(samples[i : i + step], BEEP) > 0.1 for i in range(0, len(samples) - step, step)
    ]
    # A beep lasts longer than any gap within it.
    return [i / 100 for i in range(1, len(loud)) if loud[i] and not any(loud[max(i - 30, 0) : i])]


def apart(path: Path | str, fps: int = 50) -> list[float]:
    """Of each beep, by how many seconds the nearest flash in the upper half is away from it.

    Both are decoded at once: what is subtracted of their times is then the same.
    """
    size = 32 * 18
    with tempfile.TemporaryDirectory() as folder:
        seen, heard_ = Path(folder) / "seen", Path(folder) / "heard"
        ffmpeg(
            *("-i", path, "-filter_complex"),
            f"[0:v]fps={fps}:start_time=0,scale=32:18,format=gray[v];"
            "[0:a]aresample=async=1:first_pts=0[a]",
            *("-map", "[v]", "-f", "rawvideo", seen),
            *("-map", "[a]", "-f", "s16le", "-ac", "1", "-ar", str(RATE), heard_),
        )
        frames = numpy.fromfile(seen, numpy.uint8).reshape(-1, size)
        samples = numpy.fromfile(heard_, numpy.int16).astype(numpy.float64) / 32768
    bright = frames[:, : size // 2].mean(axis=1) > 128
    flashes = [i / fps for i in range(1, len(bright)) if bright[i] and not bright[i - 1]]
    assert flashes, "no flash is seen"
    # Of one at the very beginning or end only a part may be there.
    at = [beep for beep in _beeps(samples) if flashes[0] - 0.5 < beep < flashes[-1] + 0.5]
    return [min((abs(flash - beep), flash - beep) for flash in flashes)[1] for beep in at]


# -- the whole --------------------------------------------------------------------------


def plays(path: Path | str) -> None:
    """Decode all of it: not one complaint."""
    command = ["ffmpeg", "-nostdin", "-v", "warning", "-i", str(path), "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    said = [line for line in done.stderr.decode().splitlines() if line.strip()]
    assert (done.returncode, said) == (0, []), (path, said)


def seconds(path: Path | str) -> float:
    """How long it plays: to the end of the last frame."""
    times = picture_times(path)
    return times[-1] - times[0] + (times[-1] - times[0]) / max(len(times) - 1, 1)


def kinds(path: Path | str) -> dict[str, Json]:
    """Its streams by kind."""
    return {s["codec_type"]: s for s in probe(path, "-show_streams")["streams"]}


# -- a picture that is a clock ----------------------------------------------------------

_DIAL = 640  # pixels wide
_WAY = 540  # of them, that the bar's left edge walks before it begins again


def walking(path: Path, seconds: int, speed: float, fps: int = 25) -> Path:
    """A white bar that walks over a dark picture: its left edge is at `speed` pixels a second."""
    graph = (
        f"color=black:s={_DIAL}x90:r={fps}[a];color=white:s=100x90:r={fps}[bar];"
        f"[a][bar]overlay=x='mod(t*{speed},{_WAY})':shortest=1[v]"
    )
    ffmpeg(
        *("-filter_complex", graph, "-map", "[v]", "-t", f"{seconds}", "-g", "25"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-qp", "10", "-pix_fmt", "yuv420p", str(path)),
    )
    return path


def off(seen: float, expected: float, speed: float) -> float:
    """By how many seconds what was `shown` differs, round the dial."""
    turn = _WAY / speed
    return (seen - expected + turn / 2) % turn - turn / 2


def shown(frame: Frames, speed: float) -> float:
    """The second on the dial that a picture shows; below 0 where there is no bar."""
    wide = frame.shape[1]
    bright = frame[frame.shape[0] // 3 : 2 * frame.shape[0] // 3].mean(axis=(0, 2)) > 128
    return float(bright.argmax()) * _DIAL / wide / speed if bright.any() else -1.0
