"""SIGKILL before every system call that touches the state, on the real executables.

One plain trace gives the points of a program; each point is tried on a copy of the same state:
the program is killed there, `agentorch-reclaim` and `agentorch-runner --drain` recover, the user
goes on, and then everything must be right (`scenes`, `invariants`).

Tried are some points of each (`selection`). strace follows the program itself, not its children:
a step that a runner forked dies of the runner's death, wherever it is just then; its own calls are
the points of agentorch-step. git's are nobody's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from tests.crash import deciding, parking, scenes
from tests.crash.scenes import Scene
from tests.support.crash_programs import AT_ONCE, LIB, Site, remove, site_in_memory
from tests.support.invariants import ended_attempts, places, repeated, violations
from tests.support.selection import selected
from tests.support.strace import Point, inject_argv, points

pytestmark = pytest.mark.needs("strace")
KILL = "signal=SIGKILL"
# so many points of a program, and so many of each recovery from each of them
FIRST_OF_TWO = 3
SECOND_OF_TWO = 4
T = TypeVar("T")
Record = Callable[[str, object], None]
Choose = Callable[[Sequence[Point]], Sequence[Point]]


@contextmanager
def prepared(scene: Scene, lib: Path = LIB) -> Iterator[Site]:
    """The state that a scene begins with."""
    with site_in_memory(lib) as empty:
        site = empty.with_variables(**scene.variables)
        site.queue.prepare()
        scene.prepare(site)
        yield site


def points_of(site: Site, scene: Scene) -> list[Point]:
    """The scene's points, from a run on a copy that must end well."""
    dry = site.copy()
    found = points_here(dry, scene)
    remove(dry)
    return found


def points_here(site: Site, scene: Scene) -> list[Point]:
    """The scene's points, from a run on this very site that must end well."""
    name, *arguments = scene.argv
    found, ended = points(site, name, *arguments, stdin=scene.stdin)
    assert ended.code == 0, ended
    assert found, "the trace shows no call that touches the state"
    return found


def at_once(tries: Callable[[T], list[str]], chosen: Sequence[T]) -> list[str]:
    """Tries several points at a time; what is wrong with any."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [line for lines in pool.map(tries, chosen) for line in lines]


def kill(site: Site, scene: Scene, point: Point) -> tuple[list[str], list[str]]:
    """Runs the scene's program and kills it at a point; what it answered, what is wrong."""
    name, *arguments = scene.argv
    ended = site.run(name, *arguments, stdin=scene.stdin, under=inject_argv(point, KILL))
    # how often a runner looks is not quite the same every time: it may end before its last points
    wrong = [] if ended.code in (-9, 0) else [f"it was not killed: {ended}"]
    return ended.ids if name != "runner" else [], wrong


@pytest.mark.parametrize(
    "scene", [*scenes.SCENES, *deciding.SCENES, *parking.SCENES], ids=lambda scene: scene.name
)
def test_nothing_is_lost_wherever_it_is_killed(scene: Scene, record_property: Record) -> None:
    tried, known, wrong = kills(scene, selected, LIB)
    record_property("points", f"{tried} of {known}")
    assert not wrong, "\n".join(wrong)


def kills(scene: Scene, choose: Choose, lib: Path) -> tuple[int, int, list[str]]:
    """Tries those points that are chosen; how many, of how many, and what is wrong."""
    with prepared(scene, lib) as site:
        found = points_of(site, scene)
        chosen = choose(found)
        return len(chosen), len(found), at_once(partial(killed_at, site, scene), chosen)


def killed_at(prepared: Site, scene: Scene, point: Point) -> list[str]:
    """Tries one point; what is wrong afterwards."""
    site = prepared.copy()
    ids, wrong = kill(site, scene, point)
    before = ended_attempts(site)
    wrong += site.recover()
    wrong += violations(site, by_hand=scene.repeats)
    wrong += scene.after(site, ids)
    wrong += violations(site, by_hand=scene.repeats)
    wrong += [] if scene.repeats else repeated(site, before)
    remove(site)
    return [f"{scene.name}: killed before {point}: {line}" for line in wrong]


def test_a_redelivery_finishes_what_a_dead_submitter_left(record_property: Record) -> None:
    with prepared(scenes.DELIVER) as site:
        found = selected(points_of(site, scenes.DELIVER))
        record_property("points", len(found))
        wrong = at_once(partial(redelivered_at, site), found)
    assert not wrong, "\n".join(wrong)


def redelivered_at(prepared: Site, point: Point) -> list[str]:
    """Kills a delivery at a point; what is wrong when the next one comes before any recovery."""
    site, scene = prepared.copy(), scenes.DELIVER
    answered, wrong = kill(site, scene, point)
    known = set(places(site)) | set(answered)
    again = site.run(*scene.argv, stdin=scene.stdin)
    wrong += scenes.redelivered(site, again.ids, known)
    wrong += site.recover()
    wrong += [*violations(site, by_hand=scene.repeats), *scene.after(site, again.ids)]
    remove(site)
    return [f"killed before {point}: {line}" for line in wrong]


# ---- recovery is killed too -------------------------------------------------------------------


@pytest.mark.parametrize(
    "scene", [scenes.SUBMIT_ONE, scenes.RUN_SIMULATED], ids=lambda scene: scene.name
)
def test_recovery_may_be_killed_too(scene: Scene, record_property: Record) -> None:
    tried, wrong = 0, []
    with prepared(scene) as site:
        for point in selected(points_of(site, scene), FIRST_OF_TWO):
            crashed = site.copy()
            ids, lines = kill(crashed, scene, point)
            for recovery in (scenes.RECLAIM, scenes.RECOVER):
                second = selected(points_of(crashed, recovery), SECOND_OF_TWO)
                tried += len(second)
                again = partial(killed_twice_at, crashed, recovery, scene, ids)
                lines += at_once(again, second)
            wrong += [f"{scene.name}: killed before {point}, {line}" for line in lines]
            remove(crashed)
    record_property("points", tried)
    assert not wrong, "\n".join(wrong)


def killed_twice_at(
    crashed: Site, recovery: Scene, scene: Scene, ids: list[str], point: Point
) -> list[str]:
    """Tries one point of a recovery; what is wrong after another."""
    site = crashed.copy()
    before = ended_attempts(site)
    _, wrong = kill(site, recovery, point)
    wrong += site.recover()
    wrong += violations(site)
    wrong += scene.after(site, ids)
    wrong += violations(site)
    wrong += repeated(site, before)
    remove(site)
    return [f"then {recovery.name} before {point}: {line}" for line in wrong]
