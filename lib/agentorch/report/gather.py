"""The values of a job's page, from its files; what is unknown is left out, never guessed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agentorch.artifacts.decision_log import decisions
from agentorch.artifacts.directory import JobArtifacts
from agentorch.artifacts.state import JobState, StepRecord
from agentorch.core.job import Step
from agentorch.core.results import sum_metrics
from agentorch.core.states import ENDED, State
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import Found, status_word
from agentorch.redaction.redactor import Redactor
from agentorch.report import markdown, patches, timeline
from agentorch.report.figures import between_s, figure, moment, plain
from agentorch.report.files import (
    End,
    attempt_result_in,
    beginning,
    end_of,
    list_in,
    read_document,
    result_in,
    state_in,
    string_in,
)
from agentorch.report.waits import AttemptRun, Course, Wait, waits
from agentorch.storage.json_files import Document
from agentorch.storage.paths import ArtifactPaths, AttemptPaths, StepPaths

MAX_ATTEMPTS = 50
MAX_DECISIONS = 200
FACTS = ("duration_ms", "cost_usd", "tokens_in", "tokens_out", "cpu_s", "memory_peak_bytes")


@dataclass(frozen=True)
class AttemptView:
    """One attempt of a step; without a result it has only what state.json says."""

    number: int
    status: str
    outcome: str = ""
    summary: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    model: str = ""
    error_code: str = ""
    error_details: str = ""
    question: str = ""
    verdict: str = ""
    reasons: tuple[str, ...] = ()
    program: str = ""
    credential: str = ""
    may_cost_usd: float | None = None
    cap: str = ""
    refused: tuple[str, ...] = ()
    metrics: Mapping[str, Any] | None = None
    logs: End = field(default_factory=End)

    @property
    def seconds(self) -> float | None:
        """The duration in seconds, None where it is unknown."""
        return between_s(self.started_at, self.finished_at)


@dataclass(frozen=True)
class StepView:
    """A step, with all of its attempts."""

    step: Step
    status: str
    attempts: tuple[AttemptView, ...]
    prompt: str
    is_accepted: bool = False
    report: tuple[markdown.Block, ...] = ()
    report_left_out_bytes: int = 0

    @property
    def latest(self) -> AttemptView | None:
        """The attempt that counts."""
        return self.attempts[-1] if self.attempts else None


@dataclass(frozen=True)
class Bar:
    """An attempt on the line of time."""

    attempt: AttemptView
    left: float
    width: float


@dataclass(frozen=True)
class JobView:
    """The values of a job's page."""

    found: Found
    status: str
    directory: str
    goal: str
    metadata: str
    summary: str
    error: Mapping[str, Any] | None
    question: str
    started_at: datetime | None
    finished_at: datetime | None
    now: datetime
    steps: tuple[StepView, ...]
    metrics: Mapping[str, Any]
    patch: patches.Patch | None
    decisions: tuple[Document, ...]
    decisions_left_out: int
    waits: tuple[Wait, ...]
    is_edited: bool
    scale: timeline.Scale
    has_record: bool

    def bars(self, step: StepView) -> Iterator[Bar]:
        """Yield the step's attempts with their places on the time line."""
        for attempt in step.attempts:
            if attempt.started_at is not None:
                end = attempt.finished_at or self.now
                yield Bar(attempt, *self.scale.bar(attempt.started_at, end))

    @property
    def has_caps(self) -> bool:
        """True where any attempt had a cost limit."""
        return any(one.may_cost_usd is not None for step in self.steps for one in step.attempts)

    @property
    def waits_now(self) -> tuple[Wait, ...]:
        """The waits that have not ended."""
        return tuple(one for one in self.waits if one.end is None)

    def wait_bars(self) -> Iterator[tuple[Wait, float, float]]:
        """Yield the waits with their places on the time line."""
        for one in self.waits:
            if self.scale.stretches:
                yield one, *self.scale.bar(one.start, one.end or self.now)

    def decision_marks(self) -> Iterator[tuple[float, Document]]:
        """Yield the decisions with their places on the time line."""
        for one in self.decisions:
            when = moment(one.get("when"))
            if when is not None and self.scale.stretches:
                yield round(self.scale.position(when), 3), one


def job_view(queue: Queue, found: Found, now: datetime) -> JobView:
    """Return the values of a job's page at `now`; of a running job those that exist so far."""
    paths = queue.roots.artifacts(found.job.job_id)
    artifacts = JobArtifacts(paths)
    state, result = state_in(artifacts), None
    if found.state in ENDED or found.state is State.AWAITING_APPROVAL:
        result = result_in(artifacts)
    steps = tuple(_steps(paths, found, state))
    taken = [one for one in decisions(paths) if isinstance(one, dict)]
    waited = waits(_course(paths, found, state, steps, taken))
    status = None if state is None else status_word(found.state, state)
    redactor = Redactor()
    clean = redactor.redact
    return JobView(
        found=found,
        status=plain(status or found.state or "unknown"),
        directory=str(paths.directory),
        goal=clean(found.job.goal),
        metadata=clean(json.dumps(dict(found.job.metadata), ensure_ascii=False, indent=2)),
        summary="" if result is None else plain(result.summary),
        error=None if result is None or result.error is None else result.error.to_document(),
        question=_open_question(steps) if found.state is State.AWAITING_APPROVAL else "",
        started_at=None if state is None else moment(state.started_at),
        finished_at=None if state is None else moment(state.finished_at),
        now=now,
        steps=steps,
        metrics=_metrics(steps),
        patch=patches.read(paths.patch),
        decisions=tuple(taken[-MAX_DECISIONS:]),
        decisions_left_out=max(0, len(taken) - MAX_DECISIONS),
        waits=waited[-MAX_DECISIONS:],
        is_edited=paths.edited_job.exists(),
        scale=timeline.scale(_spans(found, steps, taken, waited, now)),
        has_record=paths.manifest.exists(),
    )


def _open_question(steps: Sequence[StepView]) -> str:
    questions = [one.latest.question for one in steps if one.latest and one.latest.question]
    return questions[-1] if questions else ""


def _metrics(steps: Sequence[StepView]) -> Document:
    """Return the sum over all attempts; the earlier ones were paid for, too."""
    return sum_metrics(a.metrics or {} for step in steps for a in step.attempts)


def _course(
    paths: ArtifactPaths,
    found: Found,
    state: JobState | None,
    steps: Sequence[StepView],
    taken: Sequence[Document],
) -> Course:
    ran = [
        AttemptRun(one.started_at, one.finished_at, one.outcome, one.summary)
        for one in (attempt for step in steps for attempt in step.attempts)
        if one.started_at is not None
    ]
    return Course(
        state=found.state,
        submitted_at=found.job.submitted_at,
        started_at=None if state is None else moment(state.started_at),
        must_be_approved=found.job.policy.requires_approval,
        ran=tuple(sorted(ran, key=lambda one: one.start)),
        decisions=tuple(taken),
        parked=None if state is None else state.parked,
        hold=read_document(paths.hold),
    )


def _spans(
    found: Found,
    steps: Sequence[StepView],
    taken: Sequence[Document],
    waited: Sequence[Wait],
    now: datetime,
) -> Iterator[timeline.Span]:
    yield found.job.submitted_at, found.job.submitted_at
    for attempt in (attempt for step in steps for attempt in step.attempts):
        if attempt.started_at is not None:
            yield attempt.started_at, attempt.finished_at or now
    for one in waited:
        yield one.start, one.start
        yield one.end or now, one.end or now
    for when in (moment(one.get("when")) for one in taken):
        if when is not None:
            yield when, when


# ---- steps ------------------------------------------------------------------------------------


def _steps(paths: ArtifactPaths, found: Found, state: JobState | None) -> Iterator[StepView]:
    for step in found.job.steps:
        yield _step(paths.step(step.step_id), step, _known_step(state, step.step_id))


@dataclass(frozen=True)
class Known:
    """The part of state.json about a step; its defaults are those of a step nobody came to."""

    status: str = "pending"
    attempt: int = 0
    is_accepted: bool = False
    record: StepRecord = field(default_factory=StepRecord)


def _known_step(state: JobState | None, step_id: str) -> Known:
    if state is None or step_id not in state.progress.steps:
        return Known()
    progress = state.progress.step(step_id)
    record = state.records.get(step_id, StepRecord())
    return Known(str(progress.status), progress.attempt, progress.accepted, record)


def _step(paths: StepPaths, step: Step, known: Known) -> StepView:
    attempts = tuple(_attempts(paths, known))
    text, left_out = beginning(paths.attempt(attempts[-1].number).report) if attempts else ("", 0)
    return StepView(
        step=step,
        status=known.status,
        attempts=attempts,
        prompt=Redactor().redact(step.prompt),
        is_accepted=known.is_accepted,
        report=markdown.blocks(_report_body(text, attempts)),
        report_left_out_bytes=left_out,
    )


def _report_body(text: str, attempts: Sequence[AttemptView]) -> str:
    """Return a report without the title and the summary, which the page shows already."""
    head, _, rest = text.partition("\n\n")
    summary = attempts[-1].summary if attempts else ""
    if not head.startswith("# ") or "\n" in head or not summary:
        return text
    return rest.removeprefix(summary) if rest.startswith(f"{summary}\n") else text


def _attempts(paths: StepPaths, known: Known) -> Iterator[AttemptView]:
    try:
        names = os.listdir(paths.attempts)
    except (FileNotFoundError, NotADirectoryError):
        return
    numbers = sorted(int(name) for name in names if name.isascii() and name.isdigit())
    for number in numbers[-MAX_ATTEMPTS:]:
        yield _attempt(paths.attempt(number), number, known)


def _attempt(paths: AttemptPaths, number: int, known: Known) -> AttemptView:
    result = attempt_result_in(paths.result)
    logs = end_of(paths.logs)
    allowance = read_document(paths.allowance)
    may_cost_usd, cap = figure(allowance.get("max_cost_usd")), string_in(allowance, "cap")
    if result is None:
        is_current = known.attempt == number
        return AttemptView(
            number=number,
            status="running" if is_current and known.status == "running" else "interrupted",
            summary="" if is_current else "it left no result",
            started_at=moment(known.record.started_at) if is_current else None,
            finished_at=moment(known.record.finished_at) if is_current else None,
            may_cost_usd=may_cost_usd,
            cap=cap,
            logs=logs,
        )
    return AttemptView(
        number=number,
        status=str(result.status),
        outcome=str(result.outcome),
        summary=plain(result.summary),
        started_at=moment(result.started_at),
        finished_at=moment(result.finished_at),
        model=plain(result.model or ""),
        error_code=plain(result.error_code or ""),
        error_details=_details(result.details),
        question=plain(result.question or ""),
        verdict=result.decision or "",
        reasons=tuple(plain(one) for one in result.reasons[:50]),
        program=_program(result.program or {}),
        credential=plain(result.credential or ""),
        may_cost_usd=may_cost_usd,
        cap=cap,
        refused=tuple(plain(one) for one in list_in(result.network, "refused")[:50]),
        metrics=dict(result.metrics),
        logs=logs,
    )


def _details(details: Mapping[str, Any]) -> str:
    return json.dumps(details, ensure_ascii=False, indent=2)[:4000] if details else ""


def _program(program: Mapping[str, Any]) -> str:
    words = (string_in(program, "path"), string_in(program, "version"))
    return " ".join(word for word in words if word)


def facts(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that every table shows, as far as they are known."""
    known = {name: figure(metrics.get(name)) for name in FACTS}
    return {name: value for name, value in known.items() if value is not None}
