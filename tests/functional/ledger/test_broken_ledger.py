"""A ledger that is no ledger: jobs go on, whoever counts is told, and the metrics say it."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentorch.config.settings import load
from agentorch.core.errors import Misconfigured, TryAgain
from agentorch.ledger import ledger
from agentorch.metrics import exposition
from agentorch.storage import sqlite
from agentorch.storage.paths import Roots
from tests.support.ends import attempt, job, roots_in


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[Roots]:
    """A ledger with many ends in it, closed."""
    roots = roots_in(tmp_path)
    for number in range(200):
        told = {"tokens_in": number, "cost_usd": 0.01}
        ledger.count_attempt(
            roots, attempt(1, f"job-{number:05}", model=f"m{number % 9}", metrics=told)
        )
        ledger.count_job(roots, job(1, f"job-{number:05}"))
    sqlite.KEPT.close()
    yield roots
    sqlite.KEPT.close()


def rubbish(path: Path) -> None:
    path.write_bytes(b"this is no database, but long enough to be taken for one" * 100)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def of_tomorrow(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {ledger.VERSION + 1}")
    db.close()


def of_another_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    db.close()


def without_a_table(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE counts")
    db.close()


BREAKS = (rubbish, truncated, of_tomorrow, of_another_program, without_a_table)


@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
def test_a_broken_ledger_is_told_in_words(roots: Roots, damage: Callable[[Path], None]) -> None:
    damage(roots.state_db)
    content = roots.state_db.read_bytes()
    ends = (attempt(1, "job-new"), job(1, "job-new"))
    for told in (ledger.count_attempt(roots, ends[0]), ledger.count_job(roots, ends[1])):
        assert told is not None
        assert told.startswith(f"{roots.state_db}: ")
        assert "move it away" in told
    with pytest.raises(Misconfigured, match="move it away"):
        ledger.read_counts(roots.state_db)
    # what a human may want to look at is not overwritten
    sqlite.KEPT.close()
    assert len(roots.state_db.read_bytes()) == len(content)


def test_the_metrics_say_that_the_ledger_is_broken(roots: Roots) -> None:
    rubbish(roots.state_db)
    settings = replace(load({"AGENTORCH_ENV_FILE": "/dev/null"}), roots=roots)
    found = exposition.read_metrics(settings, datetime.now(UTC))
    assert found.problem is not None
    assert b"agentorch_ledger_readable 0.0" in found.text
    assert b"agentorch_slots 1.0" in found.text
    # what is missing is not told as none
    assert b"orchestrator_jobs_total{" not in found.text
    assert b'orchestrator_queue_jobs{state="pending"} 0.0' in found.text
    assert b'orchestrator_queue_jobs{state="done"}' not in found.text


def test_whatever_lies_there_ends_in_words(roots: Roots, tmp_path: Path) -> None:
    """A file with bytes of it changed counts, or says why not: no traceback ever."""
    rng = random.Random(7)
    good = roots.state_db.read_bytes()
    told = {"counted": 0, "words": 0}
    for number in range(150):
        directory = tmp_path / f"try{number}"
        directory.mkdir()
        damaged = roots_in(directory)
        content = bytearray(good)
        for _ in range(rng.choice((1, 20, 400))):
            content[rng.randrange(len(content))] = rng.randrange(256)
        damaged.state_db.write_bytes(
            content[: rng.choice((len(content), rng.randrange(len(content))))]
        )
        try:
            ledger.read_counts(damaged.state_db)
            problem = ledger.count_attempt(damaged, attempt(1, "job-new"))
            problem = problem or ledger.count_job(damaged, job(1, "job-00007"))
        except (Misconfigured, TryAgain) as words:
            problem = str(words)
        told["counted" if problem is None else "words"] += 1
        sqlite.KEPT.close()
        shutil.rmtree(directory)
    assert min(told.values()) > 5, told
