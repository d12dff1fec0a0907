"""SIGKILL at every call of an attempt's reservation and settlement: no cent is lost or kept."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentorch.core.allowance import Allowance
from agentorch.ledger import ledger
from agentorch.ledger.budgets import AdmissionRequest, Caps
from agentorch.ledger.counts import AttemptEnd
from agentorch.storage import sqlite
from agentorch.storage.paths import Roots
from tests.support.ends import attempt, job, roots_in, with_package
from tests.support.selection import selected
from tests.support.strace import Point, inject_argv, points_of, trace_argv

pytestmark = pytest.mark.needs("strace")
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
CAPS = Caps(day_usd=1, attempt_usd=0.3)
ROOT = Path(__file__).parents[2]

# An owner: reserves, its attempt begins and ends, and is settled. Says how far it came.
OWNER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.crash.test_ledger import CAPS, NOW, asked, ended
from tests.support.ends import roots_in
from agentorch.ledger import ledger
roots = roots_in(Path(sys.argv[1]))
ledger.admit(roots, asked(1), CAPS, NOW)
print("reserved", flush=True)
claim = roots.artifacts("job-00001").step("step1").attempt(1).claim
claim.parent.mkdir(parents=True)
claim.touch()
ledger.count_attempt(roots, ended(1))
print("settled", flush=True)
"""


def asked(number: int) -> AdmissionRequest:
    return AdmissionRequest("job-00001", "step1", number, "codex", job_usd=5.0)


def ended(number: int) -> AttemptEnd:
    return attempt(number, metrics={"cost_usd": 0.05, "model_calls": 1}, credential="KEY")


def owner(directory: Path, under: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs an owner on a state directory of its own."""
    directory.mkdir(exist_ok=True)
    argv = [*under, sys.executable, "-c", OWNER, str(directory), str(ROOT)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=with_package())


def wrong(roots: Roots, said: str) -> Iterator[str]:
    """What is wrong after the next owner took the job over, and ended it."""
    began = roots.artifacts("job-00001").step("step1").attempt(1).claim.exists()
    admission = ledger.admit(roots, asked(2), CAPS, NOW).admission
    if not isinstance(admission, Allowance):
        yield f"it may not begin: {admission}"
    ledger.count_job(roots, job())
    book = ledger.read_book(roots.state_db, CAPS, "2026-03-04", NOW)
    if book.reserved:
        yield f"reserved for ever: {book.reserved}"
    may = {0.05} if "settled" in said else {0.05, 0.3} if began else {0.0}
    if round(book.spent_usd, 6) not in may:
        yield f"${book.spent_usd} are spent, and not one of {may}"


def killed(top: Path, point: Point) -> list[str]:
    directory = top / str(point).partition(" ")[0]
    done = owner(directory, inject_argv(point, "signal=SIGKILL"))
    said = [] if done.returncode == -9 else [f"it was not killed: {done}"]
    said += wrong(roots_in(directory), done.stdout)
    sqlite.KEPT.close()
    return [f"{point}: {one}" for one in said]


def test_killed_at_any_call(tmp_path: Path) -> None:
    dry = tmp_path / "dry"
    done = owner(dry, trace_argv(tmp_path / "trace"))
    assert done.stdout == "reserved\nsettled\n", done
    found = list(points_of((tmp_path / "trace").read_text(), str(dry)))
    assert len(found) > 20
    chosen = selected(found)
    assert not [line for point in chosen for line in killed(tmp_path, point)]
