"""Reading the ledger needs no more than to read it, and leaves nothing behind.

Tried as another user, whatever its last writer left: closed, open, killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from agentorch.ledger import ledger
from agentorch.storage import sqlite
from agentorch.storage.paths import Roots
from tests.support.ends import job, roots_in, value, with_package

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
# becomes that user when all is imported: Python itself may lie where nobody else may look
READ = """
import os, sys
from pathlib import Path
from agentorch.core.errors import AgentorchError
from agentorch.ledger.ledger import read_counts
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
try:
    counts = read_counts(Path(sys.argv[1]))
except AgentorchError as problem:
    sys.exit(f"{type(problem).__name__}: {problem}")
print(counts.get(("orchestrator_jobs_total", ("success",)), {}).get("", 0))
"""
WRITE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.support.ends import attempt, job, roots_in
from agentorch.ledger import ledger
ledger.count_job(roots_in(Path(sys.argv[1])), job(1, "job-of-another"))
print("counted", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may look into."""
    with TemporaryDirectory(dir="/tmp") as name:
        top = Path(name)
        top.chmod(0o755)
        (top / "state").mkdir(mode=0o755)
        yield top
        sqlite.KEPT.close()


def read_as_nobody(place: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", READ, str(place / "state/state.db")]
    return subprocess.run(argv, env=with_package(), capture_output=True, text=True, check=False)


def open_to_all(roots: Roots) -> None:
    for path in roots.state_db.parent.glob("state.db*"):
        path.chmod(0o644)


def files(place: Path) -> dict[str, tuple[int, int]]:
    found = {path.name: path.stat() for path in (place / "state").iterdir()}
    return {name: (stat.st_ino, stat.st_size) for name, stat in found.items()}


def is_read(place: Path, jobs: float) -> None:
    before = files(place)
    ended = read_as_nobody(place)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{jobs}\n", "")
    assert files(place) == before


@contextmanager
def writer(place: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the ledger open."""
    argv = [sys.executable, "-c", WRITE, str(place / "state"), str(Path(__file__).parents[3])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, text=True, env=with_package(), **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "counted\n"
        yield process


def test_where_there_is_none(place: Path) -> None:
    is_read(place, 0)


def test_where_it_is_closed(place: Path) -> None:
    roots = roots_in(place / "state")
    ledger.count_job(roots, job())
    sqlite.KEPT.close()
    open_to_all(roots)
    assert list(files(place)) == ["state.db"]
    is_read(place, 1.0)


def test_where_it_is_open_to_be_written(place: Path) -> None:
    roots = roots_in(place / "state")
    ledger.count_job(roots, job())
    open_to_all(roots)
    assert len(files(place)) == 3
    is_read(place, 1.0)
    ledger.count_job(roots, job(2))
    is_read(place, 2.0)


def test_where_its_writer_was_killed(place: Path) -> None:
    with writer(place) as process:
        process.send_signal(signal.SIGKILL)
    open_to_all(roots_in(place / "state"))
    assert len(files(place)) == 3
    is_read(place, 1.0)


def test_where_only_the_log_was_copied_with_it(place: Path) -> None:
    with writer(place) as process:
        process.send_signal(signal.SIGKILL)
    open_to_all(roots_in(place / "state"))
    (place / "state/state.db-shm").unlink()
    # what the log holds can't be told without an index: that is said, not left out
    ended = read_as_nobody(place)
    assert ended.returncode == 1
    assert ended.stderr.startswith("TryAgain: ")
    assert "state.db" in ended.stderr


def test_where_it_may_not_be_read(place: Path) -> None:
    ledger.count_job(roots_in(place / "state"), job())
    sqlite.KEPT.close()
    ended = read_as_nobody(place)
    assert ended.returncode == 1
    assert "Permission denied" in ended.stderr


def test_while_it_is_opened_and_closed_all_the_time(place: Path) -> None:
    """Each reading is of one moment: so many attempts as jobs."""
    roots = roots_in(place / "state")
    code = (
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[2])\n"
        "from tests.support.ends import attempt, job, roots_in\n"
        "from agentorch.ledger import ledger\nfrom agentorch.storage import sqlite\n"
        "for n in range(1, 400):\n"
        "    ledger.count_job(roots_in(Path(sys.argv[1])), job(n), attempt(n))\n"
        "    sqlite.KEPT.close()\n"
    )
    argv = [sys.executable, "-c", code, str(roots.state_db.parent), str(Path(__file__).parents[3])]
    seen = []
    with subprocess.Popen(argv, env=with_package()) as process:
        while process.poll() is None:
            counts = ledger.read_counts(roots.state_db)
            told = [
                value(counts, f"orchestrator_{what}_total", "success") for what in ("jobs", "steps")
            ]
            assert told[0] == told[1]
            seen.append(told[0])
    assert process.returncode == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 10
