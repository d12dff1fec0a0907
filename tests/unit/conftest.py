"""A test of this suite that starts a process fails: rules are tried where they are decided."""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest

STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"}
_running: list[str] = []


def _refuse_processes(event: str, _arguments: tuple[object, ...]) -> None:
    if event in STARTS and _running:
        raise AssertionError(f"{_running[-1]} starts a process ({event}): it is no unit test")


# An audit hook can't be taken away again, so it looks whether a unit test is running.
sys.addaudithook(_refuse_processes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Refuse processes while the test itself runs; its fixtures may clean up as they like."""
    _running.append(item.nodeid)
    try:
        return (yield)
    finally:
        _running.pop()
