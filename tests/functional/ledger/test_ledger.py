"""The ledger: each end is counted once, and nothing that a disk or a file does loses a job."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agentorch.core.errors import TryAgain
from agentorch.core.states import State
from agentorch.jobqueue.jobqueue import Queue
from agentorch.ledger import ledger
from agentorch.storage import sqlite
from agentorch.storage.paths import Roots
from tests.support.ends import attempt, job, roots_in, value, with_package

JOBS, STEPS, LYING = (
    "orchestrator_jobs_total",
    "orchestrator_steps_total",
    "orchestrator_queue_jobs",
)


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[Roots]:
    yield roots_in(tmp_path)
    sqlite.KEPT.close()


def rows(roots: Roots, table: str) -> int:
    with sqlite3.connect(roots.state_db) as db:
        count: int = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    db.close()
    return count


# ---- once -------------------------------------------------------------------------------------


def test_an_end_that_is_told_again_is_counted_once(roots: Roots) -> None:
    for _ in range(3):
        assert ledger.count_attempt(roots, attempt()) is None
        assert ledger.count_job(roots, job()) is None
    counts = ledger.read_counts(roots.state_db)
    assert value(counts, STEPS, "success") == 1
    assert value(counts, JOBS, "success") == 1
    assert value(counts, LYING, "done") == 1


def test_an_attempt_that_nobody_took_in_is_counted_with_the_jobs_end(roots: Roots) -> None:
    ledger.count_attempt(roots, attempt(1))
    ledger.count_job(roots, job(), attempt(1))
    ledger.count_job(roots, job(), attempt(2))
    assert value(ledger.read_counts(roots.state_db), STEPS, "success") == 2


def test_a_job_that_is_retried_ends_again(roots: Roots) -> None:
    failed = {"status": "failed", "place": State.FAILED}
    ledger.count_job(roots, job(1, **failed))
    ledger.mark_resumed(roots, "job-00001")
    ledger.mark_resumed(roots, "job-00001")
    between = ledger.read_counts(roots.state_db)
    ledger.count_job(roots, job(2))
    counts = ledger.read_counts(roots.state_db)
    assert value(between, LYING, "failed") == 0
    assert [value(counts, JOBS, status) for status in ("failed", "success")] == [1, 1]
    assert [value(counts, LYING, state) for state in ("failed", "done")] == [0, 1]


def test_who_took_a_job_is_counted_once_over_all_its_ends(roots: Roots) -> None:
    ledger.count_job(roots, job(1, taken=2, status="needs_human", place=None))
    ledger.count_job(roots, job(2, taken=3, status="failed", place=State.FAILED))
    # a retry begins at 0
    ledger.count_job(roots, job(3, taken=1))
    assert value(ledger.read_counts(roots.state_db), "agentorch_reclaims_total") == 4


def test_what_was_collected_stays_counted_and_leaves_no_row(roots: Roots) -> None:
    ledger.count_attempt(roots, attempt())
    ledger.count_job(roots, job())
    for _ in range(2):
        assert ledger.forget_job(roots, "job-00001") is None
    counts = ledger.read_counts(roots.state_db)
    assert value(counts, JOBS, "success") == 1
    assert value(counts, LYING, "done") == 0
    assert [rows(roots, table) for table in ("jobs", "attempts")] == [0, 0]


def test_an_agent_makes_no_more_than_so_many_models(roots: Roots) -> None:
    for number in range(3 * ledger.MAX_MODELS):
        told = attempt(number + 1, model=f"made-up-{number}", metrics={"tokens_in": 1})
        ledger.count_attempt(roots, told)
    # what another agent told takes no room from this one
    ledger.count_attempt(
        roots, attempt(1, "job-2", agent="claude", model="m", metrics={"tokens_in": 5})
    )
    counts = ledger.read_counts(roots.state_db)
    tokens = {
        labels: v[""] for (name, labels), v in counts.items() if name.endswith("tokens_in_total")
    }
    assert len(tokens) == ledger.MAX_MODELS + 2
    assert tokens["codex", "other"] == 2 * ledger.MAX_MODELS
    assert tokens["claude", "m"] == 5


# One of several: attempts of its own, and the ends of a job that all tell of.
COUNTS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from agentorch.ledger import ledger
from tests.support.ends import attempt, job, roots_in
roots, who = roots_in(Path(sys.argv[1])), sys.argv[3]
sys.stdin.read()
told = [ledger.count_attempt(roots, attempt(n, f"job-{who}")) for n in range(25)]
told += [ledger.count_job(roots, job(n, "job-of-all")) for n in range(1, 6)]
assert told == [None] * 30
"""


def test_eight_processes_count_at_once_on_a_ledger_that_is_new(roots: Roots) -> None:
    where = (str(roots.state_db.parent), str(Path(__file__).parents[3]))
    argv = [sys.executable, "-c", COUNTS, *where]
    started = [
        subprocess.Popen([*argv, str(who)], stdin=subprocess.PIPE, env=with_package())
        for who in range(8)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait(60) for process in started] == [0] * 8
    counts = ledger.read_counts(roots.state_db)
    assert value(counts, STEPS, "success") == 8 * 25
    assert value(counts, JOBS, "success") == 5


def test_what_had_ended_before_there_was_a_ledger_lies_there(roots: Roots) -> None:
    queue = Queue(roots)
    queue.prepare()
    for number in range(3):
        name = f"5-20260101T000000.000000Z-job-old-{number}.json"
        (queue.paths.state(State.DONE) / name).touch()
    ledger.count_job(roots, job(1, "job-old-1", status="failed", place=State.FAILED))
    counts = ledger.read_counts(roots.state_db)
    assert [value(counts, LYING, state) for state in ("done", "failed")] == [2, 1]
    assert value(counts, JOBS, "success") == 0
    ledger.forget_job(roots, "job-old-0")
    assert value(ledger.read_counts(roots.state_db), LYING, "done") == 1


# ---- the file ---------------------------------------------------------------------------------


def test_the_ledger_is_not_for_everybody(roots: Roots) -> None:
    ledger.count_job(roots, job())
    beside = [roots.state_db.with_name(f"state.db{end}") for end in ("", "-wal", "-shm")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in beside] == [0o640] * 3


def test_it_is_synced_before_it_returns(roots: Roots) -> None:
    ledger.count_job(roots, job())
    with sqlite.transaction(roots.state_db, lambda _: None) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_ledger_that_was_moved_away_is_begun_anew(roots: Roots) -> None:
    ledger.count_job(roots, job())
    for path in list(roots.state_db.parent.glob("state.db*")):
        path.rename(path.with_name(f"old-{path.name}"))
    ledger.count_job(roots, job(1, "job-other"))
    assert value(ledger.read_counts(roots.state_db), JOBS, "success") == 1


def test_a_locked_ledger_is_waited_for_and_then_said(roots: Roots, tmp_path: Path) -> None:
    ledger.count_job(roots, job())
    code = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('BEGIN IMMEDIATE')\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", code, str(roots.state_db)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, text=True, **pipes) as holder:  # type: ignore[call-overload]
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(TryAgain, match=r"state\.db: .*locked"):
            ledger.count_job(roots, job(2))
        assert value(ledger.read_counts(roots.state_db), JOBS, "success") == 1
    assert ledger.count_job(roots, job(2)) is None


def test_of_a_transaction_that_was_cut_off_nothing_is_left(roots: Roots) -> None:
    ledger.count_job(roots, job())
    with suppress(KeyboardInterrupt), sqlite.transaction(roots.state_db, lambda _: None) as db:
        db.execute("DELETE FROM counts")
        raise KeyboardInterrupt
    assert value(ledger.read_counts(roots.state_db), JOBS, "success") == 1
