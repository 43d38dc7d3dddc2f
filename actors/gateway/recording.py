"""Recordings: how long they are, and how they become files that play.

baresip's sndfile writes each direction of a call to a WAV file of its own, `dump-<time>-dec.wav`
(what we heard) and `-enc.wav` (what we sent). Killed, it leaves a header that says nothing of
the length; so the length is counted from the file's size, and ffmpeg is told the format.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from supervisor import guardian
from supervisor.log import logger
from supervisor.orphans import Registry
from supervisor.process import Command, Process

HEADER = 44
# A finished file may be shorter than its longer side by this, in seconds: a frame's rounding.
SLACK = 0.1


@dataclass(frozen=True, slots=True)
class Format:
    """Of a WAV file with 16-bit samples."""

    rate: int
    channels: int

    @property
    def bytes_per_second(self) -> int:
        """Of sound."""
        return self.rate * self.channels * 2


def wav_format(path: Path) -> Format | None:
    """The format that a WAV header says; None while there is none."""
    try:
        with path.open("rb") as file:
            head = file.read(HEADER)
    except OSError:
        return None
    if len(head) < HEADER or head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    channels, rate = struct.unpack_from("<HI", head, 22)
    return Format(rate, channels) if rate and channels else None


def seconds(path: Path) -> float:
    """How much sound a file holds, by its size."""
    form = wav_format(path)
    if form is None:
        return 0.0
    return max(path.stat().st_size - HEADER, 0) / form.bytes_per_second


def dumps(folder: Path) -> list[Path]:
    """The heard sides of calls that have not been finished, oldest first."""
    return sorted(folder.glob("dump-*-dec.wav"))


def recorded(folder: Path) -> float:
    """Seconds recorded and not yet finished: of each call its longer direction."""
    return sum(max(seconds(dump), seconds(_sent(dump))) for dump in dumps(folder))


def held_open(group: int) -> set[Path]:
    """The files that the processes of a group have open (proc(5))."""
    found = set()
    for pid in guardian.members(group):
        with suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    found.add(descriptor.readlink())
    return found


def _sent(dump: Path) -> Path:
    return dump.with_name(dump.name.replace("-dec.wav", "-enc.wav"))


def target(dump: Path) -> Path:
    """The finished file of a call."""
    return dump.with_name(dump.name.replace("dump-", "call-").replace("-dec.wav", ".wav"))


def finish_arguments(dump: Path, output: Path) -> list[str] | None:
    """ffmpeg's, to mix what there is of both directions; None when there is no sound at all."""
    inputs: list[str] = []
    for side in (dump, _sent(dump)):
        form = wav_format(side)
        if form is not None and side.stat().st_size > HEADER:
            inputs += ["-f", "s16le", "-ar", str(form.rate), "-ac", str(form.channels)]
            inputs += ["-skip_initial_bytes", str(HEADER), "-i", f"file:{side}"]
    count = inputs.count("-i")
    if not count:
        return None
    mix = ["-filter_complex", "amix=inputs=2:duration=longest:normalize=0"] if count == 2 else []
    # Written under another name first: a file that is there is complete.
    return [
        "ffmpeg",
        "-nostdin",
        "-v",
        "error",
        "-y",
        *inputs,
        *mix,
        "-c:a",
        "pcm_s16le",
        "-f",
        "wav",
        f"file:{output}",
    ]


async def finish(dump: Path, registry: Registry, owner: str) -> tuple[Path, float, int] | None:
    """Make the finished file: (path, seconds, bytes); None when the call had no sound.

    The dumps stay until `discard`, so that a crash in between costs nothing. Raises OSError when it
    cannot be done.
    """
    final = target(dump)
    partial = final.with_suffix(".part")
    whole = max(seconds(dump), seconds(_sent(dump)))
    arguments = finish_arguments(dump, partial)
    if arguments is not None:
        process = Process(Command(arguments, owner=owner), registry)
        ended = await process.run()
        if ended.status != 0:
            partial.unlink(missing_ok=True)
            raise OSError(f"ffmpeg {ended}: {' '.join(process.last_lines(2))}")
        if seconds(partial) < whole - SLACK:
            # ffmpeg ends with status 0 also where the disk took only a part of what it wrote.
            said = " ".join(process.last_lines(2))
            wrote = seconds(partial)
            partial.unlink(missing_ok=True)
            raise OSError(f"only {wrote:.1f} of {whole:.1f} s could be written: {said}")
        partial.replace(final)
    if arguments is None:
        return None
    return final, seconds(final), final.stat().st_size


def discard(dump: Path) -> None:
    """Remove what a finished file was made from."""
    for side in (dump, _sent(dump)):
        try:
            side.unlink(missing_ok=True)
        except OSError as error:
            # Kept, it is only finished again at the next start.
            logger.error("dump_kept", file=str(side), error=str(error))
