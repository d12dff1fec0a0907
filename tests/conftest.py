"""What every test stands on: its own environment, programs that are there, nothing left behind."""

from __future__ import annotations

import compileall
import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import agentorch
from agentorch.config.settings import VARIABLES
from tests.support.selection import EVERYTHING

PACKAGES = {
    "bwrap": "bubblewrap",
    "mkfs.ext4": "e2fsprogs",
    "systemd-nspawn": "systemd-container",
    "systemd-analyze": "systemd",
    "dpkg-buildpackage": "dpkg-dev",
}
PASSED = pytest.StashKey[bool]()
# characters of a failure that are told before the summary
TOLD = 3000
# Minutes each, by waiting or by work, the longest first.
LONG = (
    "system/test_limits_vm.py",
    "agents/test_real_ends.py",
    "system/test_paths_everyday.py",
    "system/test_units.py",
    "system/test_paths_killed.py",
    "crash/test_kill.py",
    "system/test_schedules.py",
    "agents/test_opencode_real.py",
    "system/test_package_installed.py",
    "system/test_journal.py",
    "system/test_launcher.py",
    "system/test_paths_trouble.py",
)

# A shared machine stops for a while now and then; and what is tried is the same every time.
settings.register_profile("agentorch", deadline=None, derandomize=not EVERYTHING)
settings.load_profile("agentorch")


class Failures:
    """Tells of a failure when it happens: a run that is cut off prints no summary."""

    def __init__(self, config: pytest.Config) -> None:
        self._plugins = config.pluginmanager

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._plugins.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.write_line(f"\n{report.nodeid}, {report.when}:\n{report.longreprtext[-TOLD:]}")


def pytest_configure(config: pytest.Config) -> None:
    """Takes the developer's own configuration out of the tests' environment."""
    if not hasattr(config, "workerinput"):
        # many programs are started that may not do it, and each would compile all anew
        compileall.compile_dir(Path(agentorch.__file__).parent, quiet=2)
        config.pluginmanager.register(Failures(config))
    ours = {name for name, _, _ in VARIABLES} | {"PROJECT_ALIASES", "WEBHOOK_TOKEN"}
    for name in list(os.environ):
        if name in ours or name.startswith(("AGENTORCH_", "ANTHROPIC_", "OPENAI_")):
            del os.environ[name]
    os.umask(0o022)
    # nohup(1) has one ignored, a shell's background the others: so had every program of a test
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the exhaustive ones to `make test-all`; put the long ones first.

    So none of those is what everybody waits for at the end.
    """
    if not EVERYTHING:
        late = [item for item in items if item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=late)
        items[:] = [item for item in items if not item.get_closest_marker("exhaustive")]
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get("/".join(item.path.parts[-2:]), len(places)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test whose programs are missing, with what to install."""
    needed = [program for mark in item.iter_markers("needs") for program in mark.args]
    if missing := [program for program in needed if shutil.which(program) is None]:
        packages = " ".join(PACKAGES.get(program, program) for program in missing)
        pytest.skip(f"{', '.join(missing)} not installed: apt install {packages}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, object]:
    """Notes whether the test itself passed, for the end of its fixtures."""
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


@pytest.fixture
def tmp_path(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """pytest's own; emptied by rm when the test passed: shutil.rmtree fails on deep trees."""
    yield tmp_path
    if request.node.stash.get(PASSED, False):
        subprocess.run(["rm", "-rf", "--", str(tmp_path)], check=False)
