"""What a failed test tells of its machines."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.machine import RUNNING
from tests.support.package import NEWER, packaged, shared_directory, unbuildable


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, object]:
    """Adds the end of the journal of every machine that runs, where a test failed."""
    report = yield
    if report.failed:
        for machine in RUNNING:
            try:
                said = machine.journal()
            except (subprocess.SubprocessError, OSError) as problem:
                said = f"no journal: {problem}"
            report.sections.append((f"journal of {machine.name}", said))
    return report


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of this tree."""
    if why := unbuildable():
        pytest.skip(why)
    return packaged(shared_directory(tmp_path_factory))


@pytest.fixture(scope="session")
def newer_deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a later version."""
    if why := unbuildable():
        pytest.skip(why)
    return packaged(shared_directory(tmp_path_factory), NEWER)
