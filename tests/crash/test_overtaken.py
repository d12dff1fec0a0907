"""A cancel that comes while a runner lays its job aside: it saw the job with the runner, which did
not see it. The rename is delayed by strace, long enough for the whole cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from agentorch.artifacts.decision_log import mark
from agentorch.core.states import State
from agentorch.jobqueue.lookup import find
from tests.crash.deciding import parked, queued
from tests.crash.scenes import ID, REAL, to_ask
from tests.support.crash_programs import Site, site_in_memory
from tests.support.invariants import document, places, violations
from tests.support.polling import eventually
from tests.support.strace import inject_argv, points

OUT_OF_THE_SLOT = "queue/running/1/5-"
pytestmark = pytest.mark.needs("strace")


@pytest.fixture
def site() -> Iterator[Site]:
    with site_in_memory() as empty:
        real = empty.with_variables(**REAL)
        real.queue.prepare()
        yield real


def to_hold(site: Site) -> None:
    """A job that whoever claims it is to hold."""
    queued(site)
    mark(site.roots.artifacts(ID).hold, None, "later", datetime.now(UTC))


def woken(site: Site) -> None:
    """A parked job that somebody claims before its time."""
    parked(site)
    found = find(site.queue, ID)
    assert found.key is not None
    source = site.queue.file_of(State.PARKED, found.key)
    assert site.queue.move(source, site.queue.paths.file(State.PENDING, found.key))


@pytest.mark.parametrize(
    ("prepare", "says"),
    [(to_hold, "pending"), (woken, "parked"), (to_ask, "needs_human")],
    ids=["held", "parked", "awaiting"],
)
def test_a_cancel_is_not_lost(site: Site, prepare: Callable[[Site], None], says: str) -> None:
    prepare(site)
    calls, _ = points(site.copy(), "runner", "--once")
    aside = next(p for p in calls if p.name == "rename" and OUT_OF_THE_SLOT in p.line.split(",")[0])
    runner = site.start("runner", "--once", under=inject_argv(aside, "delay_enter=5s"))
    eventually(lambda: places(site).get(ID) is State.RUNNING and status(site) == says, 60)
    assert site.run("cancel", ID).code == 0
    assert places(site) == {ID: State.RUNNING}
    runner.communicate(timeout=60)
    assert runner.returncode == 0
    assert site.recover() == []
    assert (places(site), status(site)) == ({ID: State.FAILED}, "cancelled")
    assert violations(site) == []


def status(site: Site) -> str | None:
    state = document(site.roots.artifacts(ID).state)
    return None if state is None else state["status"]
