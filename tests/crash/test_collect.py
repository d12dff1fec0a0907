"""The collection is killed at any call; and it meets a retry of the very job."""

from __future__ import annotations

import os
from functools import partial

import pytest

from agentorch.core.states import State
from agentorch.retention.collect import TRASH
from tests.crash.scenes import ID, SCRIPT, Scene
from tests.crash.test_concurrency import ended
from tests.crash.test_kill import Record, at_once, kill
from tests.support.crash_programs import Site, job, remove, site_in_memory
from tests.support.invariants import places, violations
from tests.support.selection import selected
from tests.support.strace import Point, points

OLDEST_GO = {"ENABLE_REAL_CLI": "1", "RETENTION_MAX_BYTES": "1"}
COLLECT = Scene("gc", ("gc",), lambda _: None, lambda _, __: iter(()), variables=OLDEST_GO)


def killed_at(prepared: Site, point: Point) -> list[str]:
    """After the kill and a recovery, the job is whole or will never be seen again."""
    site = prepared.copy()
    _, wrong = kill(site, COLLECT, point)
    wrong += site.recover()
    found = places(site)
    if found not in ({}, {ID: State.DONE}):
        wrong.append(f"{found}: it was taken up again")
    again = site.run("gc")
    if again.code:
        wrong.append(f"the next collection: {again}")
    wrong += [f"left: {path}" for path in leftovers(site)]
    # the id is free
    site.submit(job(ID, SCRIPT))
    wrong += [*site.recover(), *violations(site, collected=1)]
    if places(site) != {ID: State.DONE}:
        wrong.append(f"{places(site)}: the next job of this id did not run")
    remove(site)
    return [f"killed before {point}: {line}" for line in wrong]


def leftovers(site: Site) -> list[str]:
    roots = (site.roots.artifacts_root, site.roots.workspaces_root)
    kept = [str(root / name) for root in roots for name in os.listdir(root) if name != TRASH]
    trash = [str(path) for root in roots for path in (root / TRASH).glob("*")]
    return kept + trash + list(places(site))


def test_a_collection_may_be_killed_anywhere(record_property: Record) -> None:
    with site_in_memory() as bare:
        site = bare.with_variables(**OLDEST_GO)
        site.queue.prepare()
        site.submit(job(ID, SCRIPT))
        assert site.recover() == []
        found, _ = points(site.copy(), "gc")
        assert len(found) > 5
        chosen = selected(found)
        record_property("points", len(chosen))
        wrong = at_once(partial(killed_at, site), chosen)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("first", ["gc", "retry"])
def test_a_retry_and_a_collection_at_once(first: str) -> None:
    """One of them gets the job; the other is told, and nothing is half."""
    with site_in_memory() as bare:
        site = bare.with_variables(**OLDEST_GO)
        site.queue.prepare()
        for number in range(8):
            job_id = f"job-race-{number}"
            site.submit(job(job_id, "false"))
            assert site.recover() == []
            argvs = {"gc": ("gc",), "retry": ("retry", job_id)}
            order = [first, *(argvs.keys() - {first})]
            codes = [ended(one).code for one in [site.start(*argvs[name]) for name in order]]
            assert set(codes) <= {0, 2}, codes
            state = places(site).get(job_id)
            assert state in (None, State.PENDING)
            assert site.roots.artifacts(job_id).directory.exists() is (state is not None)
            assert site.recover() == []
            assert site.run("gc").code == 0
            assert leftovers(site) == []
