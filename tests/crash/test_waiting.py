"""SIGKILL before every system call of who tells of waiting jobs, and of who ends their waiting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from tests.crash.scenes import ID, Scene
from tests.crash.test_kill import at_once, kill, points_of, prepared
from tests.support.crash_programs import Site, job, remove
from tests.support.invariants import document, places, violations
from tests.support.selection import selected
from tests.support.strace import Point

pytestmark = pytest.mark.needs("strace")
PROGRAM = '#!/bin/sh\ncat >>"$HOME/heard"\n'
WAITED = timedelta(hours=1)


def waiting(site: Site, **policy: object) -> None:
    """A job that has waited for its approval for an hour, and somebody who wants to know."""
    moment = datetime.now(UTC) - WAITED
    site.submit(job(ID, "true", policy={"requires_approval": True, **policy}))
    path = site.roots.artifacts(ID).job
    stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"submitted_at": stamp}))
    (queued,) = (site.state_directory / "queue/awaiting_approval").iterdir()
    queued.rename(queued.with_name(f"5-{moment.strftime('%Y%m%dT%H%M%S.%fZ')}-{ID}.json"))
    program = site.top / "notify.d/one"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)


def overdue(site: Site) -> None:
    waiting(site, waiting={"then": "reject", "after_sec": 60})


def cancelled(site: Site) -> None:
    waiting(site, waiting={"then": "cancel", "after_sec": 60})


def heard(site: Site, _: list[str]) -> Iterator[str]:
    """It is heard once, or twice where the kill came before it was on record; then no more."""
    for _again in range(2):
        ended = site.run("announce")
        if ended.code != 0:
            yield f"announce: {ended}"
    path = site.top / "heard"
    times = len(path.read_text().splitlines()) if path.exists() else 0
    if times not in (1, 2):
        yield f"heard {times} times"
    known = document(site.roots.artifacts(ID).announcements)
    if known is None or known["told"] != ["one"]:
        yield f"on record: {known}"
    site.run("approve", ID)
    yield from site.recover()


def ended(site: Site, _: list[str]) -> Iterator[str]:
    """It has ended, with a decision on record and a result."""
    site.run("reclaim", "--stale-after-sec", "0")
    told = (site.roots.artifacts(ID).decisions).read_text()
    if '"name": "agentorch"' not in told or "nobody decided for 1 hour" not in told:
        yield f"on record: {told}"
    if places(site)[ID] != "failed":
        yield f"it is {places(site)[ID]}"


RECLAIM = ("reclaim", "--stale-after-sec", "0")
SCENES = [
    Scene("announce", ("announce",), waiting, heard),
    Scene("reject", RECLAIM, overdue, ended),
    Scene("cancel", RECLAIM, cancelled, ended),
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_nothing_is_lost_wherever_it_is_killed(scene: Scene) -> None:
    with prepared(scene) as site:
        found = points_of(site, scene)
        assert len(found) > 3
        wrong = at_once(partial(killed_at, site, scene), selected(found))
    assert not wrong, "\n".join(wrong)


def killed_at(prepared: Site, scene: Scene, point: Point) -> list[str]:
    """Tries one point; what is wrong afterwards."""
    site = prepared.copy()
    ids, wrong = kill(site, scene, point)
    wrong += site.recover()
    wrong += [*scene.after(site, ids), *violations(site)]
    remove(site)
    return [f"{scene.name}: killed before {point}: {line}" for line in wrong]
