"""One site for all, and one elsewhere that no allow list has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.actors.egress.page.site import Site


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def elsewhere() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()
