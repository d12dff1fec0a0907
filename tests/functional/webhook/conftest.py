"""A webhook for the tests that need nothing special of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.webhook import Door, Site, opened


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One webhook for all tests of a module."""
    with opened(Site(tmp_path_factory.mktemp("webhook"))) as door:
        yield door
