"""Ends as they are counted, made of what matters in a test."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import agentorch
from agentorch.core.states import State
from agentorch.ledger.counts import AttemptEnd, JobEnd
from agentorch.ledger.ledger import Counts
from agentorch.storage.paths import Roots

WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def roots_in(directory: Path) -> Roots:
    """The roots below one directory."""
    names = ("queue", "artifacts", "workspaces", "state.db")
    return Roots(*(directory / name for name in names))


def attempt(number: int = 1, job_id: str = "job-00001", **fields: Any) -> AttemptEnd:
    """An attempt that took three seconds."""
    base = {"agent": "codex", "outcome": "success", "status": "success", "duration_s": 3.0}
    told: dict[str, Any] = {**base, "ended_at": WHEN, **fields}
    return AttemptEnd(job_id=job_id, step_id="step1", attempt=number, **told)


def job(number: int = 1, job_id: str = "job-00001", **fields: Any) -> JobEnd:
    """A job that is done."""
    base = {"status": "success", "place": State.DONE, "duration_s": 12.5, "waited_s": 0.2}
    return JobEnd(job_id=job_id, number=number, ended_at=WHEN, **{**base, **fields})


def value(counts: Counts, family: str, *labels: str, part: str = "") -> float:
    """What a counter says; 0 where it is not there."""
    return counts.get((family, labels), {}).get(part, 0)


def with_package() -> dict[str, str]:
    """The environment of a program of ours that is another process."""
    return {**os.environ, "PYTHONPATH": str(Path(agentorch.__file__).parents[1])}
