"""Results as values: what is written is read again, and what is none is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.artifacts.directory import JobArtifacts
from agentorch.contracts.to_job import job_of
from agentorch.core.errors import Damaged
from agentorch.core.job import Outcome, Verdict
from agentorch.core.results import JobResult, ResultError, StepResult, sum_metrics
from agentorch.core.states import STATUSES, OutcomeClass, Status
from agentorch.storage.paths import ArtifactPaths

WHEN = "2026-03-04T05:06:07.000000Z"
TEXT = st.text(max_size=20)
FIGURES = st.dictionaries(TEXT, st.integers(0, 9) | st.floats(0, 9) | TEXT | st.none(), max_size=4)
ERRORS = st.none() | st.builds(ResultError, TEXT, TEXT, FIGURES)
VERDICTS = st.none() | st.builds(Verdict, st.booleans(), st.lists(TEXT).map(tuple))


@st.composite
def results(draw: st.DrawFn) -> StepResult:
    kind = draw(st.sampled_from(OutcomeClass))
    return StepResult(
        job_id="job-00001",
        step_id=draw(st.sampled_from(["a", "b"])),
        agent="codex",
        role="implementer",
        status=STATUSES[kind],
        outcome=kind,
        attempts=draw(st.integers(1, 50)),
        started_at=WHEN,
        finished_at=WHEN,
        summary=draw(TEXT),
        change_status=draw(st.sampled_from([None, "changed", "no_changes"])),
        secrets_check=draw(st.sampled_from([None, "passed", "failed"])),
        session_id=draw(st.none() | TEXT),
        files=tuple(draw(st.lists(TEXT, max_size=3))),
        verdict=draw(VERDICTS),
        metrics=draw(FIGURES),
        question=draw(st.none() | TEXT),
        error=draw(ERRORS),
    )


@given(results())
def test_a_step_s_result_is_read_as_it_was_written(result: StepResult) -> None:
    document = json.loads(json.dumps(result.to_document()))
    assert StepResult.from_document(document) == result
    assert StepResult.from_document(document).to_document() == document


@given(st.lists(results(), max_size=3), ERRORS)
def test_a_job_s_result_is_read_as_it_was_written(
    steps: list[StepResult], error: ResultError | None
) -> None:
    result = JobResult("job-00001", Status.FAILED, WHEN, WHEN, "s", tuple(steps), error)
    document = json.loads(json.dumps(result.to_document()))
    assert JobResult.from_document(document) == result
    assert JobResult.from_document(document).to_document() == document
    assert document["metrics"] == sum_metrics(step.metrics for step in steps)


def test_what_others_add_to_the_metrics_is_kept() -> None:
    document = minimal() | {"metrics": {"turns": 3, "theirs": {"x": 1}}}
    assert StepResult.from_document(document).to_document()["metrics"] == document["metrics"]


def minimal() -> dict[str, Any]:
    """A step's result with what the contract requires alone."""
    return {
        "job_id": "job-00001",
        "step_id": "a",
        "agent": "codex",
        "role": "r",
        "status": "success",
        "outcome": "success",
        "attempts": 1,
        "started_at": WHEN,
        "finished_at": WHEN,
        "summary": "",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"status": "odd"},
        {"outcome": None},
        {"metrics": []},
        {"error": {"message": "without a code"}},
        {"verdict": {}},
    ],
)
def test_a_document_that_is_none_names_its_file(tmp_path: Path, change: dict[str, Any]) -> None:
    artifacts = JobArtifacts(ArtifactPaths(tmp_path))
    path = artifacts.paths.step("a").attempt(1).result
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(minimal()))
    assert artifacts.attempt_result("a", 1) is not None
    path.write_text(json.dumps(minimal() | change))
    with pytest.raises(Damaged, match=str(path)):
        artifacts.attempt_result("a", 1)


def test_an_outcome_becomes_a_result() -> None:
    job = job_of(
        {
            "job_id": "job-00001",
            "created_at": WHEN,
            "submitted_at": WHEN,
            "goal": "g",
            "steps": [{"step_id": "a", "agent": "exec", "role": "r", "prompt": "p"}],
            "source": {"type": "manual"},
            "project_id": None,
            "workdir": ".",
            "callback_url": None,
            "priority": 5,
            "tags": [],
            "metadata": {},
            "context_window": [],
            "context_strategy": "sliding",
            "artifact_handoff": "manual",
            "policy": {
                "sandbox": True,
                "network": "deny",
                "allowed_binaries": [],
                "allow_hosts": [],
                "requires_approval": False,
                "max_cost_usd": None,
                "resources": {},
            },
        }
    )
    outcome = Outcome(OutcomeClass.TIMEOUT, "too slow", error="timeout", details={"after_s": 1})
    result = StepResult.from_outcome(
        job, job.steps[0], 99, outcome, started_at=WHEN, finished_at=WHEN
    )
    assert (result.status, result.attempts, result.error_code) == (Status.TIMEOUT, 50, "timeout")
    assert result.details == {"after_s": 1}
    assert not result.is_interrupted
