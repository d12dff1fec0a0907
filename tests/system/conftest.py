"""What a failed test tells of its machines."""

from __future__ import annotations

import subprocess
from collections.abc import Generator

import pytest

from .machine import RUNNING


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
