"""Negative controls: copies of the package with one thing broken; the crash tests catch each."""

from __future__ import annotations

import compileall
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.crash import scenes
from tests.crash import test_concurrency as concurrency
from tests.crash.disks import missing
from tests.crash.scenes import Scene
from tests.crash.test_kill import at_once, kills, points_of, prepared, redelivered_at
from tests.crash.test_power_cut import cuts
from tests.support.crash_programs import LIB, Site, site_in_memory
from tests.support.selection import selected

pytestmark = pytest.mark.needs("strace")


@dataclass(frozen=True)
class Mutant:
    """One replacement in one file, and the test that must fail on it."""

    name: str
    file: str
    right: str
    wrong: str
    fails: Callable[[Path], object]
    says: str | None = None  # what the failure says
    mounts: bool = False

    def make(self, top: Path) -> Path:
        """A copy of the package with the replacement."""
        lib = top / "lib"
        shutil.copytree(LIB, lib, ignore=shutil.ignore_patterns("__pycache__"))
        path = lib / "agentorch" / self.file
        text = path.read_text()
        assert text.count(self.right) == 1, f"{self.file} has changed: {self.right!r}"
        path.write_text(text.replace(self.right, self.wrong))
        assert compileall.compile_dir(lib, quiet=1)
        return lib


def killed(scene: Scene, every: int) -> Callable[[Path], None]:
    def fails(lib: Path) -> None:
        _, _, wrong = kills(scene, lambda found: found[::every], lib)
        assert not wrong, wrong[0]

    return fails


def powerless(lib: Path) -> None:
    _, wrong = cuts(scenes.SUBMIT_ONE, lambda found: found[:1], lib)
    assert not wrong, wrong[0]


def redeliveries(lib: Path) -> None:
    with prepared(scenes.DELIVER, lib) as site:
        wrong = at_once(partial(redelivered_at, site), points_of(site, scenes.DELIVER))
    assert not wrong, wrong[0]


def on_site(test: Callable[[Site], None]) -> Callable[[Path], None]:
    def fails(lib: Path) -> None:
        with site_in_memory(lib) as site:
            site.queue.prepare()
            test(site)

    return fails


MUTANTS = (
    Mutant(
        "a directory is not synced",
        "storage/atomic.py",
        "    try:\n        os.fsync(descriptor)\n    finally:\n",
        "    try:\n        pass\n    finally:\n",
        powerless,
        says="was acknowledged and is None",
        mounts=True,
    ),
    Mutant(
        "a file is not synced",
        "storage/atomic.py",
        "    _write_all(descriptor, content)\n    os.fsync(descriptor)\n",
        "    _write_all(descriptor, content)\n",
        powerless,
        says="job.json is torn",
        mounts=True,
    ),
    Mutant(
        "an id is looked for, then taken",
        "jobqueue/jobqueue.py",
        "                os.link(incoming, artifacts.job)\n",
        "                if artifacts.job.exists():\n"
        "                    raise FileExistsError\n"
        "                atomic.link(incoming, artifacts.job)\n",
        on_site(concurrency.test_the_slower_of_two_submitters_is_the_second),
    ),
    Mutant(
        "a job is queued before its id is owned",
        "jobqueue/jobqueue.py",
        "            with contextlib.suppress(FileExistsError):\n"
        "                artifacts.directory.mkdir(0o750)\n",
        "            with contextlib.suppress(FileExistsError):\n"
        "                artifacts.directory.mkdir(0o750)\n"
        "            os.link(incoming, self.paths.file(first_state(job), job.key))\n",
        killed(scenes.SUBMIT_ONE, 1),
        says="not two names of one inode",  # the runner that takes it finds no job of that id
    ),
    Mutant(
        "a key is not kept before its job",
        "jobqueue/jobqueue.py",
        "                os.symlink(job_id, path)\n",
        "                pass\n",
        killed(scenes.DELIVER, 2),
        says="and delivered again",
    ),
    Mutant(
        "a key is taken at its word",
        "jobqueue/jobqueue.py",
        "            if self.find(job) is None:\n",
        "            if False:\n",
        redeliveries,
        says="it was answered with",
    ),
    Mutant(
        "files are written in place",
        "storage/atomic.py",
        "    temporary = _temporary(path)\n    try:\n        _create(temporary, content, mode)\n",
        "    temporary = _temporary(path)\n    path.write_bytes(content)\n    try:\n"
        "        _create(temporary, content, mode)\n",
        killed(scenes.CANCEL, 1),
        says="state.json is torn",
    ),
    Mutant(
        "a job is moved before its end is written",
        "jobqueue/finish.py",
        "    with atomic.disk_trouble(artifacts.paths.directory):\n        sweep",
        "    slot.give(key, FINAL_STATES[end.status])\n"
        "    with atomic.disk_trouble(artifacts.paths.directory):\n        sweep",
        killed(scenes.CANCEL, 4),
        says="no state.json",
    ),
    Mutant(
        "a slot is dead when nobody says otherwise",
        "jobqueue/slots.py",
        "        yield Slot(queue, name, descriptor) if lock(descriptor, wait=False) else None\n",
        "        yield Slot(queue, name, descriptor)\n",
        on_site(concurrency.test_a_stopped_runner_keeps_its_job),
    ),
    Mutant(
        "recovery trusts that a file stays where it is",
        "jobqueue/jobqueue.py",
        "        except (Damaged, FileNotFoundError):  # its submitter ended just now",
        "        except ZeroDivisionError:  # its submitter ended just now",
        on_site(concurrency.test_recovery_and_a_submitter_that_ends_just_now),
    ),
)


@pytest.mark.parametrize("mutant", selected(MUTANTS, 5), ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant: Mutant, tmp_path: Path) -> None:
    if mutant.mounts and (why := missing()):
        pytest.skip(f"not proved here: {why}")
    lib = mutant.make(tmp_path)
    with pytest.raises(AssertionError, match=mutant.says):
        mutant.fails(lib)
