"""A model double for all of a process's tests, and sites that talk to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentorch.scripted_model import ModelDouble, Turn, playing
from tests.agents.real_site import Site
from tests.support import clis
from tests.support.installation import Installation


@pytest.fixture(scope="session")
def double() -> Iterator[ModelDouble]:
    if why := clis.missing():
        pytest.skip(why)
    with playing([Turn("nothing to say")]) as double:
        yield double


@pytest.fixture
def site(double: ModelDouble) -> Iterator[Site]:
    """As whoever runs the tests."""
    site = Site(double.url)
    yield site
    site.close()


@pytest.fixture
def each(request: pytest.FixtureRequest, double: ModelDouble) -> Iterator[Site]:
    """As the user that is the parameter: `root` or `ordinary`."""
    if os.geteuid() != 0:
        pytest.skip("to be another user one has to be root")
    site = Site(double.url, ordinary=request.param == "ordinary")
    yield site
    site.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(tmp_path)
    installation.start_repository()
    yield installation
    installation.close()
