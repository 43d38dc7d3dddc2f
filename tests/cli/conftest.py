"""One appliance for the commands that leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.api.kit import CONFIG
from tests.appliance import Appliance


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance that nobody stops."""
    appliance = Appliance(tmp_path_factory.mktemp("shared"), CONFIG)
    try:
        trio.run(appliance.start)
        yield appliance
        assert trio.run(appliance.stop) == 0
    finally:
        trio.run(appliance.end)
