"""An import is killed at every call: the job is there whole, or nothing of it is."""

from __future__ import annotations

import os
from functools import partial

from agentorch.core.states import State
from agentorch.storage.paths import IMPORT
from tests.crash.scenes import ID, SCRIPT, Scene
from tests.crash.test_kill import Record, at_once, kill, points_of
from tests.support.crash_programs import Site, job, remove, site_in_memory
from tests.support.invariants import places, violations
from tests.support.selection import selected
from tests.support.strace import Point

REAL = {"ENABLE_REAL_CLI": "1"}
BRING = Scene("import", ("import", "../job.tar"), lambda _: None, lambda _, __: iter(()))


def killed_at(prepared: Site, ended: State | None, point: Point) -> list[str]:
    """After the kill and a recovery the archive is taken, or the job is there."""
    site = prepared.copy()
    answered, wrong = kill(site, BRING, point)
    recovered = site.run("reclaim", "--stale-after-sec", "0")
    wrong += [f"recovery: {recovered}"] if recovered.code else []
    found = places(site)
    where = ended or State.HELD
    if found not in ({}, {ID: where}) or (answered and not found):
        wrong.append(f"answered {answered}, and there is {found}")
    wrong += [f"left: {path}" for path in leftovers(site, found)]
    again = site.run(*BRING.argv)
    if again.code != (2 if found else 0):
        wrong.append(f"it was {found}; imported again: {again}")
    if ended is None and site.run("release", ID).code:
        wrong.append("it can't be released")
    # the end of one that had ended is not counted here, and no more are its attempts
    wrong += [*site.recover(), *violations(site, -1 if ended else 0, by_hand=ended is not None)]
    if places(site) != {ID: State.DONE}:
        wrong.append(f"{places(site)}, not done")
    story = site.roots.workspace(ID).work / "story"
    if not story.exists() or story.read_text() != "step1\nstep2\n":
        wrong.append("its work tree is not what it was")
    remove(site)
    return [f"killed before {point}: {line}" for line in wrong]


def leftovers(site: Site, found: dict[str, State]) -> list[str]:
    roots = (site.roots.artifacts_root, site.roots.workspaces_root, site.queue.paths.incoming)
    names = [name for root in roots for name in os.listdir(root)]
    return [name for name in names if IMPORT in name or (name == ID and not found)]


def exported(site: Site, *, run: bool) -> None:
    """An archive beside the state, and nothing of its job in it."""
    site.submit(job(ID, SCRIPT, SCRIPT))
    if run:
        assert site.recover() == []
    path = str(site.top / "job.tar")
    assert site.run("export", "--workspace", "-o", path, ID).code == 0
    if not run:
        assert site.run("cancel", ID).code == 0
    assert site.run("delete", ID).code == 0
    site.roots.state_db.unlink()  # it has counted what is no more
    for name in ("-wal", "-shm"):
        site.roots.state_db.with_name(f"{site.roots.state_db.name}{name}").unlink(missing_ok=True)


def wrong_of(*, run: bool, record_property: Record) -> list[str]:
    with site_in_memory() as bare:
        site = bare.with_variables(**REAL)
        site.queue.prepare()
        exported(site, run=run)
        found = points_of(site, BRING)
        chosen = selected(found)
        record_property("points", f"{len(chosen)} of {len(found)}")
        return at_once(partial(killed_at, site, State.DONE if run else None), chosen)


def test_an_ended_job_comes_whole_or_not_at_all(record_property: Record) -> None:
    wrong = wrong_of(run=True, record_property=record_property)
    assert not wrong, "\n".join(wrong)


def test_a_waiting_job_comes_whole_or_not_at_all(record_property: Record) -> None:
    wrong = wrong_of(run=False, record_property=record_property)
    assert not wrong, "\n".join(wrong)
