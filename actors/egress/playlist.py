"""HLS playlists: what the encoder wrote of each part, joined to one (RFC 8216)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of a part, and how long it plays, in seconds."""

    path: Path
    seconds: float


def read(playlist: Path) -> list[Segment]:
    """The segments that a part's playlist names and that are there; none without a playlist.

    It may be cut off anywhere: a full disk took no more of it.
    """
    try:
        lines = playlist.read_text("utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    found, seconds = [], 0.0
    for line in lines:
        if line.startswith("#EXTINF:"):
            seconds = _number(line.removeprefix("#EXTINF:").partition(",")[0])
        elif line and not line.startswith("#"):
            path = playlist.parent / line
            if path.exists():
                found.append(Segment(path, seconds))
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def join(parts: Sequence[Sequence[Segment]], folder: Path, *, ended: bool) -> str:
    """One playlist of all parts, in order, with a discontinuity between two of them.

    Names are relative to `folder`, where the playlist is to stand.
    """
    longest = max((s.seconds for part in parts for s in part), default=1.0)
    lines = ["#EXTM3U", "#EXT-X-VERSION:6", f"#EXT-X-TARGETDURATION:{math.ceil(longest)}"]
    lines += ["#EXT-X-MEDIA-SEQUENCE:0", f"#EXT-X-PLAYLIST-TYPE:{'VOD' if ended else 'EVENT'}"]
    lines += ["#EXT-X-INDEPENDENT-SEGMENTS"]
    first = True
    for part in parts:
        if not part:
            continue
        if not first:
            lines.append("#EXT-X-DISCONTINUITY")
        first = False
        for segment in part:
            lines.append(f"#EXTINF:{segment.seconds:.6f},")
            lines.append(segment.path.relative_to(folder).as_posix())
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def total(segments: Sequence[Segment]) -> float:
    """How long they play."""
    return sum(segment.seconds for segment in segments)
