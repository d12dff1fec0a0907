"""What a runner hears: jobs that come, locks that close, and when to look again."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentorch.runner.events import Events, SecondLooks
from agentorch.storage.paths import QueuePaths
from agentorch.system.signals import Signals

KEY = "5-20260101T000000.000000Z-abcdefgh.json"


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Events]:
    for name in ("pending", "running/1"):
        (tmp_path / name).mkdir(parents=True)
    with Signals([signal.SIGHUP]) as signals:
        found = Events(QueuePaths(tmp_path), signals)
        assert found.next_pending() is None
        found.watch_slots(["1"])
        found.slots_changed = False
        yield found
        found.close()


def test_a_job_that_comes_is_known_without_a_listing(events: Events, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    (tmp_path / "new").rename(tmp_path / "pending" / KEY)
    (tmp_path / "pending" / "stranger").touch()
    events.wait(None)
    assert str(events.next_pending()) == KEY
    assert events.next_pending() is None


def test_the_close_of_a_slots_lock_is_heard_and_looked_at_again(
    events: Events, tmp_path: Path
) -> None:
    (tmp_path / "running/1/.lock").open("w").close()
    events.wait(None)
    assert events.slots_changed
    for _ in SecondLooks.DELAYS_S:
        events.slots_changed = False
        before = time.monotonic()
        events.wait(None)  # would be for ever, but for the second looks
        assert events.slots_changed
        assert time.monotonic() - before < 10


def test_a_wait_of_months_is_no_more_than_the_kernel_takes(events: Events, tmp_path: Path) -> None:
    (tmp_path / "running/1/.lock").open("w").close()
    events.wait(100 * 86400.0)
    assert events.slots_changed


def test_second_looks_are_few_and_never_longer_than_asked() -> None:
    looks = SecondLooks()
    assert looks.limit(None) is None
    looks.note_close()
    assert [looks.limit(0.01) for _ in range(8)] == [
        0.001,
        0.005,
        0.01,
        0.01,
        0.01,
        0.01,
        0.01,
        0.01,
    ]
    assert looks.limit(None) is None


def test_a_signal_ends_a_wait(events: Events) -> None:
    signal.raise_signal(signal.SIGHUP)
    events.wait(None)
    assert events.signals.came(signal.SIGHUP)
