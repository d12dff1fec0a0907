"""state.json as a value: where a job is in its pipeline, and each step's record. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from agentorch.core.job import Job
from agentorch.core.pipeline import Phase, Progress, StepProgress
from agentorch.core.states import State, Status
from agentorch.storage.json_files import Document

PENDING = "pending"
PARKED = "parked"

# Where a job goes whose state is final. A status that is not here is not final.
FINAL_STATES: Mapping[str, State] = {
    Status.SUCCESS: State.DONE,
    Status.FAILED: State.FAILED,
    Status.TIMEOUT: State.FAILED,
    Status.CANCELLED: State.FAILED,
    Status.NEEDS_HUMAN: State.AWAITING_APPROVAL,
}


@dataclass(frozen=True)
class StepRecord:
    """A step's record in state.json besides the pipeline's progress. Times are RFC 3339."""

    started_at: str | None = None
    finished_at: str | None = None
    summary: str = ""


@dataclass(frozen=True)
class Parked:
    """Until when (RFC 3339) a job is parked, for which class of outcome, and why in words."""

    until: str
    kind: str
    reason: str


@dataclass(frozen=True)
class JobState:
    """state.json as a value. `claimed_at` is None where its owner left it for the next to adopt."""

    job_id: str
    status: str
    progress: Progress
    started_at: str | None = None
    finished_at: str | None = None
    claimed_at: str | None = None
    ends: int = 0  # how often the job ended, or stopped to ask
    parked: Parked | None = None
    records: Mapping[str, StepRecord] = field(default_factory=dict)

    def record(self, step_id: str, **changes: Any) -> JobState:
        """Return the same with some of a step's record changed."""
        changed = replace(self.records.get(step_id, StepRecord()), **changes)
        return replace(self, records={**self.records, step_id: changed})

    @classmethod
    def from_document(cls, document: Document) -> JobState:
        """Return the state that a document describes. Raises KeyError, TypeError or ValueError."""
        steps = document["steps"]
        progress = {
            name: StepProgress(_phase(step["status"]), **{part: step[part] for part in _PROGRESS})
            for name, step in steps.items()
        }
        records = {
            name: StepRecord(step["started_at"], step["finished_at"], step["summary"])
            for name, step in steps.items()
        }
        return cls(
            document["job_id"],
            document["status"],
            Progress(document["current_step"], progress),
            document["started_at"],
            document["finished_at"],
            document["claimed_at"],
            document["ends"],
            None if document["parked"] is None else Parked(**document["parked"]),
            records,
        )

    def to_document(self, job: Job) -> Document:
        """Return the state as state.json has it; the job says who works on each step."""
        return {
            "job_id": self.job_id,
            "status": self.status,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "claimed_at": self.claimed_at,
            "ends": self.ends,
            "parked": None if self.parked is None else asdict(self.parked),
            "current_step": self.progress.current,
            "steps": dict(_step_documents(job, self)),
        }


def _step_documents(job: Job, state: JobState) -> Iterator[tuple[str, Document]]:
    for step in job.steps:
        if step.step_id not in state.progress.steps:
            continue
        progress = state.progress.step(step.step_id)
        record = state.records.get(step.step_id, StepRecord())
        yield (
            step.step_id,
            {
                "status": progress.status,
                "attempt": progress.attempt,
                "agent": step.agent,
                "role": step.role,
                "started_at": record.started_at,
                "finished_at": record.finished_at,
                "summary": record.summary,
                "tries": progress.tries,
                "visits": progress.visits,
                "base": progress.base,
                "first": progress.first,
                "resumes": progress.resumes,
                "parks": progress.parks,
                "accepted": progress.accepted,
            },
        )


_PROGRESS = ("attempt", "tries", "visits", "base", "first", "resumes", "parks", "accepted")


def _phase(word: str) -> Phase | Status:
    # `running` is a word of both: a step's is the phase
    return Phase(word) if word in set(Phase) else Status(word)
