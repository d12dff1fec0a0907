"""A run that is killed at any call that touches the state, and made again: one job comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentorch.core.states import ENDED, State
from tests.support.crash_programs import AT_ONCE, Ended, Site, remove, site_in_memory
from tests.support.invariants import places, violations
from tests.support.selection import selected
from tests.support.strace import Point, inject_argv, points

pytestmark = pytest.mark.needs("strace")
RUN = ("run", "--due", "yearly")
KILL = "signal=SIGKILL"


def put(site: Site, overlap: str) -> None:
    document = {"id": "yearly", "schedule": "0 0 1 1 *", "overlap": overlap}
    folder = site.top / "schedules"
    folder.mkdir(exist_ok=True)
    (folder / "yearly.json").write_text(json.dumps({**document, "payload": {"goal": "x"}}))


@pytest.fixture(params=["skip", "queue", "replace"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site with one schedule; where the overlap is `replace`, a job of it that has not ended."""
    with site_in_memory() as empty:
        empty.queue.prepare()
        put(empty, request.param)
        if request.param == "replace":
            assert empty.run("schedule", "run", "yearly").code == 0
        yield empty


def unended(site: Site) -> list[str]:
    """The jobs that go on: whoever comes by ends those that have the marker."""
    found = [job for job, state in places(site).items() if state not in ENDED]
    return [job for job in found if not site.roots.artifacts(job).cancel.exists()]


def killed(site: Site, point: Point) -> list[str]:
    """What is wrong after a run was killed at a point, and made again."""
    copy = site.copy()
    first = copy.run("schedule", *RUN, under=inject_argv(point, KILL))
    again = copy.run("schedule", *RUN)
    last = copy.run("schedule", *RUN)
    # ends the old one, where the kill came in the midst of its end
    copy.run("reclaim", "--stale-after-sec", "0")
    said = [f"the kill did not come: {first}"] if first.code != -9 else []
    said += [f"it can't be made again: {one}" for one in (again, last) if one.code != 0]
    said += ["made a third time"] if last.ids else []
    said += [f"{len(unended(copy))} jobs"] if len(unended(copy)) != 1 else []
    said += ["another id"] if {*first.ids, *again.ids} - {*unended(copy)} else []
    said += [] if known(copy) == unended(copy) else ["its job is not known"]
    copy.run("cancel", *unended(copy))
    copy.recover()
    # nobody works here: what is left can only be cancelled
    said += violations(copy)
    remove(copy)
    return [f"{point}: {one}" for one in said]


def known(site: Site) -> list[str]:
    record = site.state_directory / "schedules/yearly.json"
    jobs = json.loads(record.read_text())["jobs"]
    return [job for job in jobs if job in unended(site)]


def test_killed_at_any_point(site: Site) -> None:
    dry = site.copy()
    found, ended = points(dry, "schedule", *RUN)
    assert ended.code == 0, ended
    assert len(unended(dry)) == 1
    remove(dry)
    assert len(found) > 20
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [
            line
            for said in pool.map(lambda point: killed(site, point), selected(found))
            for line in said
        ]
    assert wrong == []


def test_many_at_once_make_one_job(site: Site) -> None:
    with ThreadPoolExecutor(8) as pool:
        ran: list[Ended] = list(
            pool.map(lambda _: site.run("schedule", *RUN, under=["env"]), range(8))
        )
    assert [one.code for one in ran] == [0] * 8
    assert len([one for one in ran if one.ids]) == 1
    assert len(unended(site)) == 1
    assert set(places(site).values()) <= {State.PENDING, State.FAILED}
