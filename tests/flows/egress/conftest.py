"""Sources that are made once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.egress.media import COLOURS, beeping, coloured


@pytest.fixture(scope="session")
def beeper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flash and a beep each second, for three quarters of a minute."""
    return beeping(tmp_path_factory.mktemp("beeper") / "beeper.mp4", 45)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of one colour and one tone each, for a minute."""
    folder = tmp_path_factory.mktemp("colours")
    return {name: coloured(folder / f"{name}.mp4", name, 60) for name in COLOURS}
