"""What an end adds to which counter: pure."""

from __future__ import annotations

import math
from typing import Any

import pytest

from agentorch.core.results import INTERRUPTED, StepResult
from agentorch.ledger import metric_families
from agentorch.ledger.counts import (
    ABOVE,
    OTHER,
    SUM,
    UNKNOWN,
    Addition,
    amount,
    attempt_additions,
    attempt_end,
    between_s,
    job_additions,
    model_label,
    observe,
)
from agentorch.ledger.metric_families import FAMILIES, Kind
from tests.support.ends import attempt, job

RESULT: dict[str, Any] = {
    "job_id": "job-00001",
    "step_id": "step1",
    "agent": "codex",
    "role": "implementer",
    "attempts": 1,
    "outcome": "timeout",
    "status": "timeout",
    "started_at": "2026-03-04T05:06:07.000000Z",
    "finished_at": "2026-03-04T05:06:09.500000Z",
    "summary": "was stopped",
    "model": "gpt-5.2-codex",
    "metrics": {"duration_ms": 99999999, "tokens_in": 10, "cost_usd": None, "turns": "many"},
    "error": {"code": "timeout", "message": "…"},
}


def test_a_result_is_read() -> None:
    end = attempt_end(60, "shop", StepResult.from_document(RESULT), is_retry=True)
    # the agent's own figure of its duration is not asked
    assert (end.attempt, end.duration_s, end.project) == (60, 2.5, "shop")
    assert (end.model, end.outcome, end.status) == ("gpt-5.2-codex", "timeout", "timeout")
    assert end.metrics == {"duration_ms": 99999999, "tokens_in": 10, "cost_usd": 0, "turns": 0}


def test_an_interrupted_attempt_is_no_outcome_of_its_agent() -> None:
    error = {"code": "interrupted", "message": "…"}
    result = StepResult.from_document({**RESULT, "error": error})
    assert attempt_end(1, None, result).outcome == INTERRUPTED


@pytest.mark.parametrize("told", [-1, math.nan, math.inf, 1e300, "7", None, True, [1], 10**400])
def test_a_figure_that_is_none_counts_nothing(told: object) -> None:
    assert amount(told) == 0


def test_a_figure_is_kept() -> None:
    assert [amount(told) for told in (0, 7, 0.25, 1e15)] == [0, 7, 0.25, 1e15]


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ("claude-opus-4-5", "claude-opus-4-5"),
        ("openrouter/qwen3:free", "openrouter/qwen3:free"),
        (None, UNKNOWN),
        ("", UNKNOWN),
        ("x" * 65, OTHER),
        ('a"} 1\nevil{x="', OTHER),
        ({"a": 1}, OTHER),
        (17, "17"),
    ],
)
def test_a_models_name_is_a_short_word(told: object, word: str) -> None:
    assert model_label(told) == word


def test_a_clock_that_was_set_back_takes_nothing_away() -> None:
    assert between_s("2026-03-04T05:06:07Z", "2026-03-04T05:06:06Z") == 0


def additions(*found: Addition) -> dict[tuple[str, ...], float]:
    return {(one.family, *one.labels, one.part): one.value for one in found}


def test_what_an_attempt_adds() -> None:
    told = {
        "tokens_in": 100,
        "tokens_out": 20,
        "tokens_cached": 60,
        "cost_usd": 0.5,
        "model_calls": 3,
        "unpriced_calls": 1,
        "cpu_s": 1.5,
        "memory_peak_bytes": 70_000_000,
        "io_read_bytes": 4096,
        "io_write_bytes": 512,
    }
    found = additions(*attempt_additions(attempt(model="m", is_retry=True, metrics=told)))
    assert found == {
        ("orchestrator_steps_total", "success", ""): 1,
        ("agentorch_attempts_total", "codex", "success", "success", ""): 1,
        ("agentorch_attempt_duration_seconds", "codex", SUM): 3,
        ("agentorch_attempt_duration_seconds", "codex", "5.0"): 1,
        ("agentorch_retries_total", "codex", ""): 1,
        ("agentorch_tokens_in_total", "codex", "m", ""): 100,
        ("agentorch_tokens_out_total", "codex", "m", ""): 20,
        ("agentorch_tokens_cached_total", "codex", "m", ""): 60,
        ("agentorch_cost_usd_total", "codex", "m", ""): 0.5,
        ("agentorch_model_calls_total", "codex", "m", ""): 3,
        ("agentorch_unpriced_calls_total", "codex", "m", ""): 1,
        ("agentorch_cpu_seconds_total", "codex", ""): 1.5,
        ("agentorch_io_bytes_total", "codex", "read", ""): 4096,
        ("agentorch_io_bytes_total", "codex", "write", ""): 512,
        ("agentorch_memory_peak_bytes", "codex", SUM): 70_000_000,
        ("agentorch_memory_peak_bytes", "codex", str(float(1 << 27))): 1,
    }


def test_an_attempt_that_tells_nothing_adds_no_rows_of_nothing() -> None:
    assert all(one.value for one in attempt_additions(attempt(duration_s=1.0)))
    assert len(list(attempt_additions(attempt()))) == 4


def test_what_a_job_adds() -> None:
    found = additions(*job_additions(job(taken=3), 1))
    assert found == {
        ("orchestrator_jobs_total", "success", ""): 1,
        ("agentorch_reclaims_total", ""): 2,
        ("agentorch_job_wait_seconds", SUM): 0.2,
        ("agentorch_job_wait_seconds", "0.5"): 1,
        ("agentorch_job_duration_seconds", SUM): 12.5,
        ("agentorch_job_duration_seconds", "60.0"): 1,
        ("orchestrator_job_duration_ms", SUM): 12500,
        ("orchestrator_job_duration_ms", "count"): 1,
    }


def test_a_job_that_asks_has_no_duration_yet_and_waits_once() -> None:
    asks = {one.family for one in job_additions(job(status="needs_human", place=None), 0)}
    assert asks == {"orchestrator_jobs_total", "agentorch_job_wait_seconds"}
    again = {one.family for one in job_additions(job(2), 0)}
    assert "agentorch_job_wait_seconds" not in again
    assert "orchestrator_job_duration_ms" in again


def test_a_job_that_was_never_claimed_is_counted_alone() -> None:
    (only,) = job_additions(job(status="cancelled", duration_s=None, waited_s=None), 0)
    assert only == Addition("orchestrator_jobs_total", ("cancelled",), 1)


@pytest.mark.parametrize(
    ("seen", "bucket"), [(0, "0.1"), (0.1, "0.1"), (0.11, "0.5"), (1e9, ABOVE)]
)
def test_a_value_is_in_the_first_bucket_that_holds_it(seen: float, bucket: str) -> None:
    _, counted = observe(metric_families.JOB_WAIT, seen)
    assert counted == Addition("agentorch_job_wait_seconds", (), 1, bucket)


def test_families_are_named_as_prometheus_wants_them() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
        assert (family.kind is Kind.HISTOGRAM) == bool(family.buckets)
        assert list(family.buckets) == sorted(set(family.buckets))
        assert family.words.endswith(".")
