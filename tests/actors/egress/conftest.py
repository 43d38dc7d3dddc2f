"""Parts of a recording that are made once for all tests."""

from __future__ import annotations

import subprocess

import pytest

from actors.egress import encode
from actors.egress.request import Video, Wanted
from tests.actors.egress.footage import Footage

SIZE = "160x90"
FPS = 10
WANTED = Wanted(video=Video(width=160, height=90, frame_rate=FPS, bitrate=200))


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Footage:
    """Two parts as an encoder leaves them, of 4 and 2 seconds; the clock of the second goes on."""
    root = tmp_path_factory.mktemp("footage")
    inputs = ["-f", "lavfi", "-i", f"testsrc2=s={SIZE}:r={FPS}"]
    inputs += ["-f", "lavfi", "-i", "sine=sample_rate=48000"]
    begin, lengths = 0.0, []
    for number, seconds in enumerate([4.0, 2.0], 1):
        part = root / f"{number:04d}"
        part.mkdir()
        argv = encode.arguments(inputs, WANTED, FPS, part, begin, seconds)
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        subprocess.run(argv, **quiet, check=True, timeout=60)  # type: ignore[call-overload]
        begin += seconds
        lengths.append(seconds)
    return Footage(root, lengths)
