"""A job's artifact directory: what is written there while it runs, and how it is read again.

state.json is the commit record: a job is ended exactly when its status there is final. Everything
else of the end (result, report, patch, logs) is durable before it, so a final state always has
its result, and an owner that finds a final state only moves the queue file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agentorch.core.allowance import Allowance
from agentorch.core.job import SCHEMA_VERSION, Job, Outcome, Step, Verdict
from agentorch.core.pipeline import Phase, Progress, StepProgress
from agentorch.core.states import STATUSES, State, Status
from agentorch.core.text import demote_headings, one_line, printable
from agentorch.redaction.redactor import Redactor
from agentorch.storage import atomic
from agentorch.storage.json_files import Document, make_from, read_bytes, read_json, read_text
from agentorch.storage.paths import STEP_FILES, ArtifactPaths

PENDING = "pending"
PARKED = "parked"
MAX_ATTEMPTS = 50  # what a result may say
PEAKS = frozenset({"memory_peak_bytes", "tasks_peak"})

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


class JobArtifacts:
    """One job's artifact directory."""

    def __init__(self, paths: ArtifactPaths) -> None:
        self.paths = paths

    def read_state(self) -> JobState | None:
        """Return what state.json says; None where the job was never claimed. Raises Damaged."""
        document = read_json(self.paths.state)
        return None if document is None else make_from(self.paths.state, document, state_of)

    def told_state(self) -> Document | None:
        """Return the document of `read_state`."""
        document = read_json(self.paths.state)
        if document is not None:
            make_from(self.paths.state, document, state_of)
        return document

    def write_state(self, job: Job, state: JobState) -> None:
        """Replace state.json; durable when it returns."""
        atomic.replace_json(self.paths.state, state_document(job, state))

    def read_context(self, job: Job) -> tuple[Mapping[str, Any], ...]:
        """Return the conversation so far: context.json, or the job's own window at the start."""
        document = read_json(self.paths.context)
        return job.context_window if document is None else tuple(document["messages"])

    def read_base(self) -> str | None:
        """Return the commit that the workspace was made from, None before it was made."""
        document = read_json(self.paths.base)
        return None if document is None else str(document["commit"])

    def write_base(self, commit: str, tree: str) -> None:
        """Remembers what the workspace was made from, for the case that it is lost; durable."""
        atomic.replace_json(self.paths.base, {"commit": commit, "tree": tree})

    def context_document(self) -> Document | None:
        """context.json as it is, None before the first step ended."""
        return read_json(self.paths.context)

    def write_context(self, document: Document) -> None:
        """Replace context.json; durable when it returns."""
        atomic.replace_json(self.paths.context, document)

    def next_attempt(self, step_id: str, last: int) -> int:
        """Return a number above `last` that no attempt of the step has used."""
        number = last + 1
        while self.paths.step(step_id).attempt(number).directory.exists():
            number += 1
        return number

    def attempt_result(self, step_id: str, attempt: int) -> Document | None:
        """Return how an attempt ended, None while it has no result."""
        return read_json(self.paths.step(step_id).attempt(attempt).result)

    def attempt_end(self, step_id: str, attempt: int) -> Document | None:
        """Return how an attempt's unit ended; None where it had none, or nobody could record it."""
        return read_json(self.paths.step(step_id).attempt(attempt).end)

    def successes(self, job: Job) -> list[Document]:
        """Return the results of the steps that succeeded, or that a human took as they are, in the
        order in which they ended.
        """
        state = self.read_state()
        taken = {} if state is None else {n: s.accepted for n, s in state.progress.steps.items()}
        found = [
            result
            for result in self.step_results(job)
            if result["status"] == Status.SUCCESS or taken.get(result["step_id"])
        ]
        return sorted(found, key=lambda result: str(result["finished_at"]))

    def write_allowance(self, step_id: str, attempt: int, allowance: Allowance) -> None:
        """Write what an attempt may cost, for the process that runs it; nothing where nothing
        limits it.

        It need not outlive a power cut: the attempt does not.
        """
        if allowance.max_cost_usd is None:
            return
        paths = self.paths.step(step_id).attempt(attempt)
        paths.directory.mkdir(0o750, parents=True, exist_ok=True)
        atomic.replace(paths.allowance, atomic.encode(asdict(allowance)), last=False)

    def read_allowance(self, step_id: str, attempt: int) -> Allowance:
        """Return what an attempt may cost."""
        document = read_json(self.paths.step(step_id).attempt(attempt).allowance)
        return Allowance() if document is None else Allowance(**document)

    def step_results(self, job: Job) -> list[Document]:
        """Return the published results of the job's steps, in their order."""
        found = (read_json(self.paths.step(step.step_id).latest.result) for step in job.steps)
        return [result for result in found if result is not None]

    def read_patch(self) -> bytes:
        """Return the job's patch as an earlier end left it, empty where there was none."""
        return read_bytes(self.paths.patch)

    def publish_step(self, step_id: str, attempt: int) -> None:
        """Make an attempt's files the step's, result last; durable when it returns."""
        step = self.paths.step(step_id)
        publish(step.attempt(attempt).directory, step.directory)

    def write_end(self, job: Job, result: Document, patch: bytes) -> None:
        """Write the job's result, report, patch and logs; the result last."""
        steps = [self.paths.step(step.step_id).latest for step in job.steps]
        texts = [
            (step, paths)
            for step, paths in zip(job.steps, steps, strict=True)
            if paths.result.exists()
        ]
        report = [
            f"# Job {job.job_id}: {result['status']}\n\n",
            f"{_quote(job.goal)}\n\n{result['summary']}\n",
        ]
        logs = b""
        for step, paths in texts:
            report.append(
                f"\n## {step.step_id} ({step.agent}, {one_line(step.role)})\n\n"
                f"{demote_headings(read_text(paths.report).strip(), 2)}\n"
            )
            logs += read_bytes(paths.logs)
        # the steps' parts are clean; goal and role are what the submitter wrote
        text = Redactor().redact("".join(report))
        atomic.replace(self.paths.report, text.encode("utf-8", "replace"), last=False)
        atomic.replace(self.paths.patch, patch, last=False)
        atomic.replace(self.paths.logs, logs, last=False)
        atomic.replace_json(self.paths.result, result)


def publish(source: Path, directory: Path) -> None:
    """Make the files of an attempt those of a directory, result last; durable."""
    for name in STEP_FILES:
        if (source / name).exists():
            atomic.link(source / name, directory / name)
        else:
            (directory / name).unlink(missing_ok=True)
    atomic.sync_directory(directory)


def step_result(
    job: Job,
    step: Step,
    attempt: int,
    outcome: Outcome,
    *,
    started_at: str,
    finished_at: str,
    change_status: str | None = None,
    secrets_check: str | None = None,
) -> Document:
    """Return a step's result.json (contracts/result.schema.json). Pure."""
    directory = f"steps/{step.step_id}"
    error = None
    if outcome.error is not None:
        details = dict(outcome.details)
        error = {"code": outcome.error, "message": outcome.summary, "details": details}
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "step",
        "job_id": job.job_id,
        "step_id": step.step_id,
        "agent": step.agent,
        "role": step.role,
        "status": STATUSES[outcome.kind],
        "outcome": outcome.kind,
        "attempts": min(attempt, MAX_ATTEMPTS),
        "started_at": started_at,
        "finished_at": finished_at,
        "summary": outcome.summary,
        "change_status": change_status,
        "secrets_check": secrets_check,
        "session_id": outcome.session_id,
        "model": outcome.model,
        "credential": outcome.credential,
        "program": None if outcome.program is None else dict(outcome.program),
        "files": list(outcome.files),
        "verdict": _verdict(outcome.verdict),
        "network": dict(outcome.network),
        "artifacts": {
            "report_md": f"{directory}/report.md",
            "patch_diff": f"{directory}/patch.diff",
            "logs_txt": f"{directory}/logs.txt",
            "result_json": f"{directory}/result.json",
        },
        "metrics": dict(outcome.metrics),
        "question": outcome.question,
        "error": error,
    }


def _verdict(verdict: Verdict | None) -> Document | None:
    if verdict is None:
        return None
    decision = "approve" if verdict.approved else "request_changes"
    return {"decision": decision, "reasons": list(verdict.reasons)}


def job_result(
    job: Job,
    state: JobState,
    steps: list[Document],
    *,
    error: Document | None,
    summary: str,
    now: str,
) -> Document:
    """Return the job's result.json (contracts/result.schema.json). Pure."""
    changes = {step.get("change_status") for step in steps}
    checks = {step.get("secrets_check") for step in steps}
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "job",
        "job_id": job.job_id,
        "status": state.status,
        "started_at": state.started_at or now,
        "finished_at": now,
        "summary": summary,
        "change_status": "changed" if "changed" in changes else "no_changes" if steps else None,
        "secrets_check": "failed"
        if "failed" in checks
        else "passed"
        if "passed" in checks
        else None,
        "artifacts": {
            "report_md": "report.md",
            "patch_diff": "patch.diff",
            "logs_txt": "logs.txt",
            "result_json": "result.json",
        },
        "metrics": sum_metrics(steps),
        "error": error,
        "steps": steps,
    }


def sum_metrics(steps: list[Document]) -> Document:
    """Return the metrics of several results: of peaks the highest, else the sum of what is
    known.
    """
    total: Document = {}
    for step in steps:
        for name, value in step.get("metrics", {}).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                known = total.get(name, 0)
                total[name] = max(known, value) if name in PEAKS else known + value
    return total


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in printable(text).splitlines())


def state_document(job: Job, state: JobState) -> Document:
    """Return a job's state as state.json has it. Pure."""
    return {
        "job_id": state.job_id,
        "status": state.status,
        "started_at": state.started_at,
        "finished_at": state.finished_at,
        "claimed_at": state.claimed_at,
        "ends": state.ends,
        "parked": None if state.parked is None else asdict(state.parked),
        "current_step": state.progress.current,
        "steps": dict(_step_documents(job, state)),
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


def state_of(document: Document) -> JobState:
    """Return what a state.json says. Pure."""
    steps = document["steps"]
    progress = {
        name: StepProgress(_phase(step["status"]), **{part: step[part] for part in _PROGRESS})
        for name, step in steps.items()
    }
    records = {
        name: StepRecord(step["started_at"], step["finished_at"], step["summary"])
        for name, step in steps.items()
    }
    return JobState(
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


def _phase(word: str) -> Phase | Status:
    # `running` is a word of both: a step's is the phase
    return Phase(word) if word in set(Phase) else Status(word)
