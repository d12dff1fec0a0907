"""Results: result.json of a step and of a job as values (contracts/result.schema.json). Pure.

They are the only readers of the documents' keys. `from_document` raises KeyError, TypeError or
ValueError where a document is none of ours; whoever reads a file turns that into Damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentorch.core.job import SCHEMA_VERSION, Job, Outcome, Step, Verdict
from agentorch.core.states import STATUSES, OutcomeClass, Status

Document = dict[str, Any]

MAX_ATTEMPTS = 50  # what a result may say
PEAKS = frozenset({"memory_peak_bytes", "tasks_peak"})
# The error code of an attempt that its runner stopped, and that is run again.
INTERRUPTED = "interrupted"

_APPROVE, _REQUEST_CHANGES = "approve", "request_changes"


@dataclass(frozen=True)
class ResultError:
    """The error of a result: a code of the contract, a sentence, and facts about it."""

    code: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None) -> ResultError | None:
        if document is None:
            return None
        return cls(document["code"], document["message"], document.get("details") or {})

    def to_document(self) -> Document:
        return {"code": self.code, "message": self.message, "details": dict(self.details)}


@dataclass(frozen=True)
class StepResult:
    """The result of an attempt of a step, and of the step whose last attempt it was.

    Times are RFC 3339. `metrics` are open: figures of the contract and whatever an agent adds.
    """

    job_id: str
    step_id: str
    agent: str
    role: str
    status: Status
    outcome: OutcomeClass
    attempts: int
    started_at: str
    finished_at: str
    summary: str
    change_status: str | None = None
    secrets_check: str | None = None
    session_id: str | None = None
    model: str | None = None
    credential: str | None = None
    program: Mapping[str, Any] | None = None
    files: Sequence[Any] = ()
    verdict: Verdict | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    question: str | None = None
    error: ResultError | None = None

    @classmethod
    def from_outcome(
        cls,
        job: Job,
        step: Step,
        attempt: int,
        outcome: Outcome,
        *,
        started_at: str,
        finished_at: str,
        change_status: str | None = None,
        secrets_check: str | None = None,
    ) -> StepResult:
        """Return the result of an attempt that came to this outcome."""
        error = None
        if outcome.error is not None:
            error = ResultError(outcome.error, outcome.summary, dict(outcome.details))
        return cls(
            job_id=job.job_id,
            step_id=step.step_id,
            agent=step.agent,
            role=step.role,
            status=STATUSES[outcome.kind],
            outcome=outcome.kind,
            attempts=min(attempt, MAX_ATTEMPTS),
            started_at=started_at,
            finished_at=finished_at,
            summary=outcome.summary,
            change_status=change_status,
            secrets_check=secrets_check,
            session_id=outcome.session_id,
            model=outcome.model,
            credential=outcome.credential,
            program=outcome.program,
            files=outcome.files,
            verdict=outcome.verdict,
            network=outcome.network,
            metrics=outcome.metrics,
            question=outcome.question,
            error=error,
        )

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> StepResult:
        """Return the result that a document describes."""
        return cls(
            job_id=document["job_id"],
            step_id=document["step_id"],
            agent=document["agent"],
            role=document["role"],
            status=Status(document["status"]),
            outcome=OutcomeClass(document["outcome"]),
            attempts=document["attempts"],
            started_at=document["started_at"],
            finished_at=document["finished_at"],
            summary=document["summary"],
            change_status=document.get("change_status"),
            secrets_check=document.get("secrets_check"),
            session_id=document.get("session_id"),
            model=document.get("model"),
            credential=document.get("credential"),
            program=document.get("program"),
            files=tuple(document.get("files") or ()),
            verdict=_verdict_of(document.get("verdict")),
            network=document.get("network") or {},
            metrics=_mapping(document.get("metrics")),
            question=document.get("question"),
            error=ResultError.from_document(document.get("error")),
        )

    def to_document(self) -> Document:
        """Return the result as result.json has it."""
        directory = f"steps/{self.step_id}"
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "step",
            "job_id": self.job_id,
            "step_id": self.step_id,
            "agent": self.agent,
            "role": self.role,
            "status": self.status,
            "outcome": self.outcome,
            "attempts": self.attempts,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "summary": self.summary,
            "change_status": self.change_status,
            "secrets_check": self.secrets_check,
            "session_id": self.session_id,
            "model": self.model,
            "credential": self.credential,
            "program": None if self.program is None else dict(self.program),
            "files": list(self.files),
            "verdict": None if self.verdict is None else _verdict_document(self.verdict),
            "network": dict(self.network),
            "artifacts": _artifacts(f"{directory}/"),
            "metrics": dict(self.metrics),
            "question": self.question,
            "error": None if self.error is None else self.error.to_document(),
        }

    @property
    def decision(self) -> str | None:
        """The word of the verdict; None where there is none."""
        if self.verdict is None:
            return None
        return _APPROVE if self.verdict.approved else _REQUEST_CHANGES

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons of the verdict; empty where there is none."""
        return () if self.verdict is None else self.verdict.reasons

    @property
    def error_code(self) -> str | None:
        """The error's code; None where there is no error."""
        return None if self.error is None else self.error.code

    @property
    def details(self) -> Mapping[str, Any]:
        """The error's details; empty where there is no error."""
        return {} if self.error is None else self.error.details

    @property
    def is_interrupted(self) -> bool:
        """True where the attempt ended because its runner stopped it, and is to be run again."""
        return self.error_code == INTERRUPTED


@dataclass(frozen=True)
class JobResult:
    """The result of a job that ended, or that waits for a human. Times are RFC 3339."""

    job_id: str
    status: str
    started_at: str
    finished_at: str
    summary: str
    steps: tuple[StepResult, ...] = ()
    error: ResultError | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> JobResult:
        """Return the result that a document describes."""
        return cls(
            job_id=document["job_id"],
            status=document["status"],
            started_at=document["started_at"],
            finished_at=document["finished_at"],
            summary=document["summary"],
            steps=tuple(StepResult.from_document(step) for step in document.get("steps", ())),
            error=ResultError.from_document(document.get("error")),
        )

    def to_document(self) -> Document:
        """Return the result as result.json has it: what can be summed up is, from the steps."""
        changes = {step.change_status for step in self.steps}
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "job",
            "job_id": self.job_id,
            "status": self.status,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "summary": self.summary,
            "change_status": (
                "changed" if "changed" in changes else "no_changes" if self.steps else None
            ),
            "secrets_check": self.secrets_check,
            "artifacts": _artifacts(""),
            "metrics": self.metrics,
            "error": None if self.error is None else self.error.to_document(),
            "steps": [step.to_document() for step in self.steps],
        }

    @property
    def secrets_check(self) -> str | None:
        """The worst of the steps' checks; None where none was made."""
        checks = {step.secrets_check for step in self.steps}
        return "failed" if "failed" in checks else "passed" if "passed" in checks else None

    @property
    def metrics(self) -> Document:
        """The figures of all steps together."""
        return sum_metrics(step.metrics for step in self.steps)


def sum_metrics(several: Iterable[Mapping[str, Any]]) -> Document:
    """Return the metrics of several results: of peaks the highest, else the sum of what is
    known.
    """
    total: Document = {}
    for metrics in several:
        for name, value in metrics.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                known = total.get(name, 0)
                total[name] = max(known, value) if name in PEAKS else known + value
    return total


def _artifacts(prefix: str) -> Document:
    return {
        "report_md": f"{prefix}report.md",
        "patch_diff": f"{prefix}patch.diff",
        "logs_txt": f"{prefix}logs.txt",
        "result_json": f"{prefix}result.json",
    }


def _verdict_document(verdict: Verdict) -> Document:
    decision = _APPROVE if verdict.approved else _REQUEST_CHANGES
    return {"decision": decision, "reasons": list(verdict.reasons)}


def _verdict_of(document: Mapping[str, Any] | None) -> Verdict | None:
    if document is None:
        return None
    return Verdict(document["decision"] == _APPROVE, tuple(document["reasons"]))


def _mapping(value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, found {type(value).__name__}")
    return value
