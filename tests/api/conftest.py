"""One appliance for the tests that leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.api.declared import look
from tests.api.kit import CONFIG
from tests.appliance import Appliance


@pytest.fixture(scope="package", autouse=True)
def answers_are_declared() -> Iterator[None]:
    """Every answer to every test here is one that the OpenAPI document tells of."""
    Appliance.on_answer.append(look)
    yield
    Appliance.on_answer.remove(look)


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance with cheap gateways. Names must be new; what is started must be stopped."""
    appliance = Appliance(tmp_path_factory.mktemp("shared"), CONFIG)
    try:
        trio.run(appliance.start)
        yield appliance
        assert trio.run(appliance.stop) == 0
    finally:
        trio.run(appliance.end)
