"""Every system call that touches the state fails once, as a full, broken or read-only disk does.

A command then says so, answers nothing, exits with 75 and leaves nothing half done; a runner waits
and goes on by itself. Tried are some calls of each (`selection`), those of submit with each error,
those of others with one error in turn.
EINTR is retried by Python where the kernel gives it (PEP 475): then all goes well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle

import pytest

from tests.crash import scenes
from tests.crash.scenes import ID, Scene
from tests.crash.test_kill import Record, at_once, points_of, prepared
from tests.support.crash_programs import Ended, Site, remove
from tests.support.invariants import places, violations
from tests.support.selection import selected
from tests.support.strace import Point, inject_argv

pytestmark = pytest.mark.needs("strace")

ERRORS = {
    "openat": ("ENOSPC", "EROFS", "EIO", "EMFILE", "EDQUOT"),
    "write": ("ENOSPC", "EIO", "EDQUOT"),
    "fsync": ("EIO", "ENOSPC", "EDQUOT"),
    "ftruncate": ("EIO",),
    "mkdir": ("ENOSPC", "EROFS", "EIO", "EDQUOT"),
    "link": ("ENOSPC", "EROFS", "EIO", "EDQUOT"),
    "rename": ("ENOSPC", "EROFS", "EIO"),
    "unlink": ("EROFS", "EIO"),
    "pwrite64": ("ENOSPC", "EIO"),
}
INTERRUPTIBLE = ("openat", "write", "fsync", "flock")
# The answer itself; the trial of the disk at a runner's start, which is there to fail; and what
# SQLite does not ask about: the directory of its files, and those that whoever opens next removes.
OTHER = re.compile(
    r"^write\(1<|/\.[0-9a-f]{16}\b|^unlink\(.*/state\.db-(?:journal|wal|shm)\"|^fsync\(\d+<[^>]*/state>\)"
    # a cache of hashes: without it, they are made again
    r"|/\.?programs\.json"
    r"|^pwrite64\(\d+<[^>]*/state\.db>"  # that is where the log is copied to at last
)

# SQLite's own: where it copes, all that was answered has to be true
LEDGERS = re.compile(r"^(?:openat|ftruncate)\(.*/state\.db\b")


def failures(found: Sequence[Point]) -> Iterator[tuple[Point, str]]:
    """Each point with each error that its call may give."""
    for point in found:
        if not OTHER.search(point.line):
            yield from ((point, error) for error in ERRORS.get(point.name, ()))


def one_each(found: Sequence[Point]) -> list[tuple[Point, str]]:
    """Each point with one error, all errors in turn."""
    turns = {name: cycle(errors) for name, errors in ERRORS.items()}
    points = [p for p in found if p.name in turns and not OTHER.search(p.line)]
    return [(point, next(turns[point.name])) for point in points]


def refused(site: Site, scene: Scene, point: Point, error: str) -> Ended:
    """Runs the scene's program with one call failing."""
    name, *arguments = scene.argv
    return site.run(name, *arguments, stdin=scene.stdin, under=inject_argv(point, f"error={error}"))


# ---- submit -----------------------------------------------------------------------------------


def test_a_submission_that_fails_leaves_nothing(record_property: Record) -> None:
    scene = scenes.SUBMIT_ONE
    with prepared(scene) as site:
        chosen = selected(list(failures(points_of(site, scene))))
        record_property("points", len(chosen))
        wrong = at_once(partial(submission_fails_at, site, scene), chosen)
    assert not wrong, "\n".join(wrong)


def submission_fails_at(prepared: Site, scene: Scene, at: tuple[Point, str]) -> list[str]:
    site = prepared.copy()
    ended = refused(site, scene, *at)
    wrong = [] if (ended.code, ended.out) == (75, "") else [f"not refused: {ended}"]
    if f"agentorch-submit: {site.state_directory}" not in ended.err:
        wrong.append(f"the path is not named: {ended.err!r}")
    wrong += violations(site)
    wrong += [f"it is {place}" for place in places(site).values()]
    wrong += scene.after(site, [])
    wrong += violations(site)
    remove(site)
    return [f"{at[1]} of {at[0]}: {line}" for line in wrong]


def test_a_signal_in_between_is_no_failure(record_property: Record) -> None:
    scene = scenes.SUBMIT_ONE
    with prepared(scene) as site:
        chosen = [p for p in points_of(site, scene) if p.name in INTERRUPTIBLE]
        record_property("points", len(chosen))
        wrong = at_once(partial(interrupted_at, site, scene), [(p, "EINTR") for p in chosen])
    assert not wrong, "\n".join(wrong)


def interrupted_at(prepared: Site, scene: Scene, at: tuple[Point, str]) -> list[str]:
    site = prepared.copy()
    ended = refused(site, scene, *at)
    wrong = [] if ended.ids == [ID] else [f"not acknowledged: {ended}"]
    wrong += site.recover()
    wrong += [*violations(site), *scene.after(site, ended.ids)]
    remove(site)
    return [f"EINTR of {at[0]}: {line}" for line in wrong]


# ---- decide -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", scenes.DECISIONS, ids=lambda scene: scene.name)
def test_a_decision_that_fails_can_be_taken_again(scene: Scene, record_property: Record) -> None:
    with prepared(scene) as site:
        chosen = selected(one_each(points_of(site, scene)))
        record_property("points", len(chosen))
        wrong = at_once(partial(decision_fails_at, site, scene), chosen)
    assert not wrong, "\n".join(wrong)


def decision_fails_at(prepared: Site, scene: Scene, at: tuple[Point, str]) -> list[str]:
    site = prepared.copy()
    ended = refused(site, scene, *at)
    # the ledger's files can be opened in other ways, and be cut another time
    coped = ended.code == 0 and LEDGERS.search(at[0].line) is not None
    wrong = [] if coped or (ended.code, ended.out) == (75, "") else [f"not refused: {ended}"]
    if not coped and f"agentorch-{scene.argv[0]}: {site.state_directory}" not in ended.err:
        wrong.append(f"the path is not named: {ended.err!r}")
    wrong += site.recover()
    wrong += [*scene.after(site, ended.ids), *violations(site)]
    remove(site)
    return [f"{at[1]} of {at[0]}: {line}" for line in wrong]


# ---- run --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scene", [scenes.RUN_SIMULATED, scenes.CARRY_ON], ids=lambda scene: scene.name
)
def test_a_runner_waits_and_goes_on(scene: Scene, record_property: Record) -> None:
    with prepared(scene) as site:
        chosen = selected(one_each(points_of(site, scene)))
        record_property("points", len(chosen))
        wrong = at_once(partial(runner_fails_at, site, scene), chosen)
    assert not wrong, "\n".join(wrong)


def runner_fails_at(prepared: Site, scene: Scene, at: tuple[Point, str]) -> list[str]:
    site = prepared.copy()
    ended = refused(site, scene, *at)
    wrong = [] if ended.code == 0 else [f"it did not go on: {ended}"]
    wrong += [*scene.after(site, []), *violations(site)]
    for step in site.roots.artifacts(ID).started_steps():
        if len(list(step.attempts.glob("*/result.json"))) > 1:
            wrong.append(f"{step.directory.name} was run twice")
    remove(site)
    return [f"{at[1]} of {at[0]}: {line}" for line in wrong]


def test_a_step_that_fails_is_run_by_the_runner(record_property: Record) -> None:
    scene = scenes.STEP
    with prepared(scene) as site:
        chosen = selected(one_each(points_of(site, scene)))
        record_property("points", len(chosen))
        wrong = at_once(partial(step_fails_at, site, scene), chosen)
    assert not wrong, "\n".join(wrong)


def step_fails_at(prepared: Site, scene: Scene, at: tuple[Point, str]) -> list[str]:
    site = prepared.copy()
    ended = refused(site, scene, *at)
    wrong = [] if ended.code == 75 else [f"not refused: {ended}"]
    wrong += site.recover()
    wrong += [*scene.after(site, []), *violations(site, by_hand=scene.repeats)]
    remove(site)
    return [f"{at[1]} of {at[0]}: {line}" for line in wrong]
