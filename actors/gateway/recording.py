"""Recordings: how long they are, and how they become files that play.

baresip's sndfile writes each direction of a call to a WAV file of its own, `dump-<time>-dec.wav`
(what we heard) and `-enc.wav` (what we sent). Killed, it leaves a header that says nothing of
the length; so the length is counted from the file's size, and ffmpeg is told the format.

The time is in whole seconds, and a file that is there is overwritten. So a call's files are given
another name, `dump-<time>-<n>-dec.wav`, as soon as the call is heard of: baresip goes on writing
to them, and the next call in the same second gets files of its own. Two that are answered within
the milliseconds that this takes still share theirs; `shared` sees it.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections import Counter
from collections.abc import Iterator
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


# As baresip names them; those that we have named have a number more.
_ITS_NAME = re.compile(r"(dump(?:-\d+){6})-(?:dec|enc)\.wav")


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
    """The heard sides of calls that have not been finished, oldest first, under names they keep."""
    return [dump for dump in _heard(folder) if own(dump)]


def recorded(folder: Path) -> float:
    """Seconds recorded and not yet finished: of each call its longer direction."""
    return sum(max(seconds(dump), seconds(_sent(dump))) for dump in _heard(folder))


def _heard(folder: Path) -> list[Path]:
    return sorted(folder.glob("dump-*-dec.wav"))


def own(dump: Path) -> bool:
    """Has this file a name that it keeps, and that no other call can get?"""
    return _ITS_NAME.fullmatch(dump.name) is None


def take(folder: Path) -> None:
    """Give the files that baresip has begun names of their own."""
    found = (_ITS_NAME.fullmatch(path.name) for path in folder.glob("dump-*.wav"))
    for call in sorted({match[1] for match in found if match}):
        try:
            _rename(folder, call)
        except OSError as error:
            logger.error("dump_not_named", folder=str(folder), call=call, error=str(error))


def _rename(folder: Path, call: str) -> None:
    """The heard side last: it is what others look for, and then the other is there already."""
    for n in itertools.count(1):
        heard = folder / f"{call}-{n}-dec.wav"
        if not heard.exists() and not target(heard).exists():
            break
    for side in ("enc", "dec"):
        file = folder / f"{call}-{side}.wav"
        if file.exists():
            file.rename(folder / f"{call}-{n}-{side}.wav")


def held_open(group: int) -> set[Path]:
    """The files that the processes of a group have open."""
    return {path for pid in guardian.members(group) for path in _open_files(pid)}


def shared(group: int) -> list[Path]:
    """The heard sides that more than one call is written to."""
    return [
        path
        for pid in guardian.members(group)
        for path, count in Counter(_open_files(pid)).items()
        if count > 1 and path.match("dump-*-dec.wav")
    ]


def _open_files(pid: int) -> Iterator[Path]:
    """By descriptor (proc(5))."""
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                yield descriptor.readlink()


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
