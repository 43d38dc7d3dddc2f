"""Parts of a recording, to be laid where a worker would have written them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from actors.egress.encode import PLAYLIST
from actors.egress.tracks import Folder, Track

ALL = [1, 2]


@dataclass(frozen=True, slots=True)
class Footage:
    """`lengths` are the seconds of the parts, from the first; they are below `root`."""

    root: Path
    lengths: list[float]

    @property
    def seconds(self) -> float:
        """Of all parts."""
        return sum(self.lengths)

    def lay(self, folder: Folder, track: Track, *numbers: int) -> None:
        """Put parts of a track where they belong; all of them, if none is named."""
        for number in numbers or ALL:
            shutil.copytree(self.root / f"{number:04d}", folder.part(track, number))

    def cut_off(self, folder: Folder, track: Track, number: int) -> Path:
        """As when an encoder is killed: its last segment is there and not named; where it is."""
        part = folder.part(track, number)
        *named, last = sorted(part.glob("*.ts"))
        lines = (part / PLAYLIST).read_text("utf-8").splitlines()
        at = lines.index(last.name)
        (part / PLAYLIST).write_text("\n".join(lines[: at - 1]) + "\n", "utf-8")
        assert named
        return last
