"""The power is cut before sampled system calls, and after the answer: what was acknowledged stays.

The program is killed at the point, and then the disk below it (FS_IOC_SHUTDOWN): a dying process
writes nothing. The disk is mounted again in another boot, recovery runs, and everything must be
right. Steps are simulated: no sandbox mounts a /proc in which something is covered. ext4 alone is
tried, and its own notion of a power cut: no torn sectors, no lost flushes.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from tests.crash import scenes
from tests.crash.disks import Cut, Disk, missing, scratch, threads
from tests.crash.scenes import Scene
from tests.crash.test_kill import KILL, Choose, Record, points_here
from tests.support.crash_programs import LIB, Site
from tests.support.invariants import ended_attempts, repeated, violations
from tests.support.selection import selected
from tests.support.strace import Point, inject_argv
from tests.support.warm import Warm, warmed

pytestmark = pytest.mark.needs("strace", "mke2fs")
MEGABYTES = 32


@functools.cache
def no_disk() -> str | None:
    """Why this can't be tried here."""
    return missing()


@pytest.mark.parametrize(
    ("scene", "most"),
    [
        (scenes.SUBMIT_ONE, 12),
        (scenes.SUBMIT_APPROVAL, 2),
        (scenes.DELIVER, 4),
        (scenes.RUN_SIMULATED, 5),
        (scenes.APPROVE, 4),
    ],
    ids=lambda value: value.name if isinstance(value, Scene) else "",
)
def test_what_was_acknowledged_survives(scene: Scene, most: int, record_property: Record) -> None:
    if no_disk():
        pytest.skip(f"not proved here: {no_disk()}")
    tried, wrong = cuts(scene, partial(selected, most=most), LIB)
    record_property("points", tried)
    assert not wrong, "\n".join(wrong)


def cuts(scene: Scene, choose: Choose, lib: Path) -> tuple[int, list[str]]:
    """Cuts the power at points that are chosen and after the end, both ways; what is wrong."""
    with scratch() as top, ExitStack() as stack, threads() as pool:
        warm = partial(warm_here, threading.local(), stack, lib)
        base, found = pool.submit(prepared, scene, top / "base", lib).result()
        chosen = list(product([*choose(found), None], Cut))
        tries = partial(cut_at, base, scene, top, lib, warm)
        wrong = [line for lines in pool.map(tries, chosen) for line in lines]
    return len(chosen), wrong


def warm_here(threads_own: threading.local, stack: ExitStack, lib: Path) -> Warm:
    """What is warm for this thread, and so sees its mounts; ended with `stack`."""
    if not hasattr(threads_own, "warm"):
        threads_own.warm = stack.enter_context(warmed(lib, 1))
    warm: Warm = threads_own.warm
    return warm


def prepared(scene: Scene, top: Path, lib: Path) -> tuple[Disk, list[Point]]:
    """A disk with the state that a scene begins with, unmounted; and the scene's points."""
    top.mkdir()
    disk = Disk.make(top, megabytes=MEGABYTES)
    with warmed(lib, 1) as warm:
        site = disk.site(Site(top, lib, warm=warm)).with_variables(**scene.variables)
        site.queue.prepare()
        scene.prepare(site)
        disk.close()
        again = disk.copy(top / "dry")
        found = points_here(again.site(site), scene)
        again.close()
    return disk, found


def cut_at(
    base: Disk,
    scene: Scene,
    top: Path,
    lib: Path,
    warm: Callable[[], Warm],
    at: tuple[Point | None, Cut],
) -> list[str]:
    """Tries one cut; what is wrong afterwards."""
    point, cut = at
    name, *arguments = scene.argv
    disk = base.copy(top / f"{cut.name}-{point.name if point else 'end'}-{point and point.ordinal}")
    site = disk.site(Site(top, lib, warm=warm())).with_variables(**scene.variables)
    under = [] if point is None else inject_argv(point, KILL)
    ended = site.run(name, *arguments, stdin=scene.stdin, under=under)
    ids = ended.ids if name != "runner" else []
    disk.cut_power(cut)
    before = ended_attempts(site)
    wrong = site.recover()
    wrong += violations(site)
    wrong += scene.after(site, ids)
    wrong += violations(site)
    wrong += repeated(site, before)
    disk.close()
    disk.image.unlink()
    return [f"{scene.name}: {cut.name} before {point or 'the end'}: {line}" for line in wrong]
