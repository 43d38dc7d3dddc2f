"""What the tests of the configuration share: a file, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.load import load
from config.model import Config
from config.source import ConfigError


def loaded(folder: Path, text: str) -> Config:
    """The configuration of a file with this text."""
    file = folder / "switchboard.yaml"
    file.write_text(text)
    return load(file)


def problems(folder: Path, text: str) -> list[str]:
    """All that is wrong with a file, each as `line: path: message`."""
    file = folder / "switchboard.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    return [str(p).removeprefix(f"{file}:") for p in caught.value.problems]
