"""Disks that are really full or read-only: what was acknowledged stays, the rest is refused.

Each is a file system of a few MiB, mounted for one thread of the test.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from agentorch.core.states import State
from tests.crash.disks import Disk, mount_tmpfs, remount, scratch, threads, unmount
from tests.crash.test_power_cut import no_disk
from tests.support.crash_programs import LIB, Ended, Site, job
from tests.support.invariants import places, violations
from tests.support.warm import warmed

ROOM = "size=64m,nr_inodes=10000"


@pytest.fixture
def mounting() -> Iterator[ThreadPoolExecutor]:
    """A thread with mounts of its own: a test's function runs in there."""
    if no_disk():
        pytest.skip(f"not proved here: {no_disk()}")
    with threads() as pool:
        yield pool


@contextmanager
def small(options: str) -> Iterator[Site]:
    """A site on a tmpfs of its own."""
    with scratch() as top:
        directory = top / "mounted"
        mount_tmpfs(directory, options)
        with warmed(LIB, 1) as warm:
            site = Site(top, state=directory / "state", warm=warm)
            site.queue.prepare()
            yield site
        unmount(directory)


def fill(site: Site) -> list[Ended]:
    """Submits until nothing goes any more, and once more; how each ended."""
    ended: list[Ended] = []
    while len(ended) < 2 or ended[-2].code == 0:
        one = job(f"job-full-{len(ended)}", "true", goal="x" * 4000, metadata={"x": "y" * 60000})
        ended.append(site.run("submit", "-", stdin=json.dumps(one)))
        assert len(ended) < 100
    return ended


def is_kept(site: Site, ended: list[Ended], more: Callable[[], None]) -> None:
    """What was acknowledged is there, what was not is not, and all goes on with more room."""
    acknowledged = {job_id for e in ended for job_id in e.ids}
    assert acknowledged
    assert [e.code for e in ended if not e.ids] == [75, 75]
    assert all(str(site.state_directory) in e.err for e in ended if not e.ids)
    assert set(places(site)) == acknowledged
    more()
    assert site.recover() == []
    assert places(site) == dict.fromkeys(acknowledged, State.DONE)
    again = json.dumps(job(f"job-full-{len(ended) - 1}", "true"))
    assert site.run("submit", "-", stdin=again).code == 0
    assert site.recover() == []
    assert violations(site) == []


@pytest.mark.parametrize("options", ["size=1m", "size=16m,nr_inodes=60"], ids=["bytes", "inodes"])
def test_submissions_fill_a_disk(mounting: ThreadPoolExecutor, options: str) -> None:
    def fills() -> None:
        with small(options) as site:
            is_kept(site, fill(site), lambda: remount(site.state_directory.parent, ROOM))

    mounting.submit(fills).result()


def test_submissions_fill_an_ext4(mounting: ThreadPoolExecutor) -> None:
    def fills() -> None:
        with scratch() as top:
            disk = Disk.make(top, megabytes=8)
            ballast = disk.directory / "ballast"
            ballast.write_bytes(b"x" * (5 << 20))
            with warmed(LIB, 1) as warm:
                site = disk.site(Site(top, warm=warm))
                site.queue.prepare()
                is_kept(site, fill(site), ballast.unlink)
            disk.close()

    mounting.submit(fills).result()


@pytest.mark.parametrize("floor", ["0", str(4 << 20)], ids=["no floor", "floor"])
def test_a_runner_goes_on_when_there_is_room(mounting: ThreadPoolExecutor, floor: str) -> None:
    def goes_on() -> None:
        with small("size=3m") as roomy:
            site = roomy.with_variables(AGENTORCH_MIN_FREE_BYTES=floor)
            roomy.submit(job("job-full-1"))
            mounted = site.state_directory.parent
            with (mounted / "ballast").open("wb") as ballast:
                fill_up(ballast.fileno())
            runner = site.start("runner", "--drain")
            said = until_waiting(runner)
            assert places(site).keys() == {"job-full-1"}
            remount(mounted, ROOM)
            _, rest = runner.communicate(timeout=60)
            assert runner.returncode == 0, said + rest
            assert places(site) == {"job-full-1": State.DONE}
            assert violations(site) == []

    mounting.submit(goes_on).result()


def test_a_step_that_finds_no_room_is_not_started_again_and_again(
    mounting: ThreadPoolExecutor,
) -> None:
    def waits() -> None:
        with small(ROOM) as site:
            # a single inode, the top's own: nothing can be made there
            workspaces = site.state_directory.parent / "tight"
            mount_tmpfs(workspaces, "size=1m,nr_inodes=1")
            tight = site.with_variables(
                WORKSPACES_ROOT=str(workspaces), RUNNER_POLL_INTERVAL_SEC="1"
            )
            site.submit(job("job-full-1"))
            runner = tight.start("runner", "--drain")
            until_waiting(runner)
            # its own moves are no reason to try again before the interval is over
            time.sleep(2.5)
            attempts = len(list(site.state_directory.glob("artifacts/*/steps/*/attempts/*")))
            remount(workspaces, "nr_inodes=10000")
            runner.communicate(timeout=60)
            assert runner.returncode == 0
            assert places(site) == {"job-full-1": State.DONE}
            unmount(workspaces)
            assert 0 < attempts <= 5

    mounting.submit(waits).result()


def test_a_read_only_disk_takes_no_job(mounting: ThreadPoolExecutor) -> None:
    def refuses() -> None:
        with small(ROOM) as site:
            mounted = site.state_directory.parent
            stdin = json.dumps(job("job-full-1"))
            remount(mounted, "ro")
            refused = site.run("submit", "-", stdin=stdin)
            assert (refused.code, refused.out) == (75, "")
            assert str(site.state_directory) in refused.err
            remount(mounted, "rw")
            assert site.run("submit", "-", stdin=stdin).ids == ["job-full-1"]
            assert site.recover() == []
            assert violations(site) == []

    mounting.submit(refuses).result()


def fill_up(descriptor: int) -> None:
    """Writes until nothing goes any more."""
    size = 1 << 16
    while size:
        try:
            os.write(descriptor, b"x" * size)
        except OSError:
            size //= 2


def until_waiting(runner: subprocess.Popen[str]) -> str:
    """Reads what a runner says until it says that it waits."""
    said = ""
    assert runner.stderr is not None
    for line in runner.stderr:
        said += line
        if "waiting:" in line:
            return said
    raise AssertionError(f"it does not wait: {said}")
