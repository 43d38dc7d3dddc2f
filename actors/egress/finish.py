"""From parts to files that play. Doing it again after a crash does it over, from the segments.

Formats other than HLS are made by copying what was encoded into another container; the segments go
when all that was asked for is there.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from actors.egress import playlist
from actors.egress.encode import PLAYLIST
from actors.egress.playlist import Segment
from actors.egress.tracks import Folder, Track
from supervisor.log import logger
from supervisor.orphans import Registry
from supervisor.process import Command, Exit, Process

# A finished file may be shorter than its segments by this, in seconds.
SLACK = 1.0
# What copies into another container, or puts its head first, writes all the time: one that has
# not for so long hangs. And what looks at a file gets so long. In seconds.
HUNG = 120.0
PROBE = 30.0
_FORMATS = {
    "mp4": ["-movflags", "+faststart", "-f", "mp4"],
    "ts": ["-f", "mpegts"],
    "mkv": ["-f", "matroska"],
}


@dataclass(frozen=True, slots=True)
class Made:
    """A file: `name` below the task's `files`, with all that belongs to it in `bytes`."""

    name: str
    format: str
    user: str
    bytes: int
    seconds: float


class CannotFinish(Exception):
    """What keeps a file from being made, in words; the segments are kept."""


async def finish(
    folder: Folder,
    track: Track,
    numbers: list[int],
    formats: list[str],
    registry: Registry,
    owner: str,
) -> tuple[list[Made], list[str]]:
    """Make a track's files of its parts: (what was made, what could not be and why).

    Where something could not be made, the recording is kept as HLS. The segments stay, whatever was
    asked for, until the task's end is kept (`tidy`): a crash before that begins here again.
    """
    made: list[Made] = []
    problems: list[str] = []
    try:
        for number in numbers:
            await salvage(folder.part(track, number), registry, owner)
        parts = await trio.to_thread.run_sync(folder.parts, track, numbers)
        seconds = sum(playlist.total(part) for part in parts)
        if seconds <= 0:
            return made, problems
        index = await trio.to_thread.run_sync(_write_playlist, folder, track, parts)
    except OSError as error:
        return made, [f"{track.name}: {error.strerror or error}"]
    for name in formats:
        if name == "hls":
            continue
        try:
            made.append(await _remux(folder, track, index, name, seconds, registry, owner))
        except CannotFinish as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{track.name}.{name}: {error.strerror or error}")
    if "hls" in formats or problems:
        size = await trio.to_thread.run_sync(_size, parts)
        made.insert(0, Made(f"{track.name}.m3u8", "hls", _user(track), size, seconds))
    return made, problems


def _size(parts: list[list[Segment]]) -> int:
    return sum(segment.path.stat().st_size for part in parts for segment in part)


def _user(track: Track) -> str:
    return track.users[0] if len(track.users) == 1 else ""


def tidy(folder: Folder, track: Track) -> None:
    """Delete the segments of a track that was not to be HLS, once its end is kept."""
    shutil.rmtree(folder.files / track.segments, ignore_errors=True)
    (folder.files / f"{track.name}.m3u8").unlink(missing_ok=True)


def _write_playlist(folder: Folder, track: Track, parts: list[list[Segment]]) -> Path:
    target = folder.files / f"{track.name}.m3u8"
    partial = target.with_name(target.name + ".tmp")
    try:
        partial.write_text(playlist.join(parts, target.parent, ended=True), "utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


async def _remux(
    folder: Folder,
    track: Track,
    index: Path,
    name: str,
    seconds: float,
    registry: Registry,
    owner: str,
) -> Made:
    target = folder.files / f"{track.name}.{name}"
    # Under another name first: a file that is there is complete.
    partial = target.with_name(f"{target.name}.part")
    # The discontinuities are for players: the parts' clocks go on from each other.
    listing = folder.root / "joined.m3u8"
    text = index.read_text("utf-8").replace("#EXT-X-DISCONTINUITY\n", "")
    base = index.parent.relative_to(folder.root).as_posix()
    lines = [line if not line or line[0] == "#" else f"{base}/{line}" for line in text.split("\n")]
    arguments = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", f"{listing}"]
    arguments += ["-map", "0", "-c", "copy", *_FORMATS[name], f"file:{partial}"]
    process = Process(Command(arguments, owner=owner), registry)
    try:
        listing.write_text("\n".join(lines), "utf-8")
        ended = await _watched(process, partial)
        if ended is None:
            raise CannotFinish(f"{target.name}: nothing was written for {HUNG:g} s")
        if ended.status != 0:
            raise CannotFinish(f"{target.name}: ffmpeg {ended}: {' '.join(process.last_lines(2))}")
        got = await duration(partial, registry, owner)
        if got is None:
            raise CannotFinish(f"{target.name}: how much was written cannot be told")
        if got < seconds - SLACK:
            # ffmpeg ends with status 0 also where the disk took only a part of what it wrote.
            raise CannotFinish(f"{target.name}: only {got:.1f} of {seconds:.1f} s were written")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
        listing.unlink(missing_ok=True)
    return Made(f"{track.name}.{name}", name, _user(track), target.stat().st_size, got)


async def _watched(process: Process, output: Path) -> Exit | None:
    """Run it to its end, as long as what it writes grows; None where it hung. Raises OSError."""
    hung = False
    failed: OSError | None = None

    async def watch() -> None:
        nonlocal hung
        size, since = -1, trio.current_time()
        while True:
            await trio.sleep(1.0)
            now = output.stat().st_size if output.exists() else 0
            if now != size:
                size, since = now, trio.current_time()
            elif trio.current_time() - since > HUNG:
                hung = True
                await process.kill()
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            await process.run()
        except OSError as error:
            # It could not be started. Out of a nursery it would come as a group.
            failed = error
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return None if hung else process.exit


async def duration(path: Path, registry: Registry, owner: str) -> float | None:
    """Seconds that a file plays: 0 where it does not, None where nobody could say so."""
    arguments = ["ffprobe", "-v", "error", "-show_entries", "format=duration"]
    arguments += ["-of", "csv=p=0", f"file:{path}"]
    process = Process(Command(arguments, owner=owner), registry)
    try:
        with trio.move_on_after(PROBE):
            await process.run()
    except OSError as error:
        logger.warning("not_probed", actor=owner, file=path.name, error=str(error))
        return None
    if process.exit is None or process.exit.status < 0:
        logger.warning("not_probed", actor=owner, file=path.name, error=str(process.exit))
        return None
    try:
        return float(process.last_lines(1)[0])
    except (IndexError, ValueError):
        logger.warning("no_duration", actor=owner, file=path.name)
        return 0.0


async def salvage(part: Path, registry: Registry, owner: str) -> None:
    """Add to a part's playlist what its encoder wrote and did not live to name.

    Of a segment that was being written, the packets that reached the disk play. Done before the
    next part begins, whose clock goes on where this one's ends.
    """
    index = part / PLAYLIST
    known = {segment.path.name for segment in playlist.read(index)}
    extra = ""
    for path in sorted(part.glob("*.ts")):
        if path.name in known:
            continue
        seconds = await duration(path, registry, owner)
        if seconds is None:
            continue  # it is looked at again the next time
        if seconds <= 0:
            with suppress(OSError):
                path.unlink()
            continue
        extra += f"#EXTINF:{seconds:.6f},\n{path.name}\n"
    if extra:
        text = index.read_text("utf-8") if index.exists() else "#EXTM3U\n"
        text = _whole(text, part).replace("#EXT-X-ENDLIST\n", "")
        partial = index.with_suffix(".new")
        try:
            partial.write_text(text + extra, "utf-8")
            partial.replace(index)
        except OSError as error:
            # What a full disk keeps from being named now is found again the next time.
            partial.unlink(missing_ok=True)
            logger.warning("not_salvaged", actor=owner, error=str(error))


def _whole(text: str, part: Path) -> str:
    """A playlist without a last line that is not whole: the disk was full in the middle of it."""
    last = text.rpartition("\n")[2]
    if last and (part / last).exists():
        return f"{text}\n"
    return text.removesuffix(last)
