"""The pipeline: what follows a step, a pure function of the job, its progress and the outcome.

Nothing here reads a clock or a file. `Progress` is all that the pipeline remembers of a job; it is
what state.json holds, so a resume at any point goes on as an uninterrupted run would.

A *visit* of a step begins when the pipeline comes to it; a *try* is an attempt of that visit that
ended by itself. An attempt that was interrupted (its runner was stopped or died) is no try.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from agentorch.core.job import Handoff, Job, Step
from agentorch.core.states import STATUSES, OutcomeClass, Reaction, Status
from agentorch.core.states import reaction as reaction_to

MAX_VISITS = 5
MAX_BACKOFF_S = 30.0


class Phase(StrEnum):
    """The phase of a step, besides the statuses of its result."""

    PENDING = "pending"
    RUNNING = "running"
    RETRYING = "retrying"


@dataclass(frozen=True)
class StepProgress:
    """The pipeline's knowledge of a step. `attempt` counts executions over all visits.

    `base` is an attempt of this visit: what the workspace was like before it is what every attempt
    from then on starts from. That is the visit's first, until one is parked: what that did is kept,
    and the next goes on from there (`resumes` is its number, 0 where none was). `first` is then the
    visit's first attempt, 0 where that is `base`; `parks` counts how often in a row it was parked.
    `accepted`: a human took the step as it is.
    """

    status: Phase | Status = Phase.PENDING
    attempt: int = 0
    tries: int = 0
    visits: int = 0
    base: int = 1
    first: int = 0
    resumes: int = 0
    parks: int = 0
    accepted: bool = False


@dataclass(frozen=True)
class Progress:
    """The progress of a job: the step that is next or running, and every step's own progress."""

    current: str
    steps: Mapping[str, StepProgress] = field(default_factory=dict)

    def step(self, step_id: str) -> StepProgress:
        """Return the progress of a step; that of one nobody came to yet is the default."""
        return self.steps.get(step_id, StepProgress())

    def with_step(self, step_id: str, progress: StepProgress) -> Progress:
        """Return the same with one step's progress replaced."""
        return replace(self, steps={**self.steps, step_id: progress})


@dataclass(frozen=True)
class RunStep:
    """Run the current step, after a delay in seconds."""

    after_s: float = 0.0


@dataclass(frozen=True)
class AskHuman:
    """Stop here until a human decides; the current step is where it goes on."""

    reason: str


@dataclass(frozen=True)
class Park:
    """Stop here until a later time; the current step then goes on where it stopped.

    `until` None: its owner finds out when.
    """

    kind: OutcomeClass
    reason: str
    until: datetime | None = None


@dataclass(frozen=True)
class Finish:
    """The job has ended; `error` is the job's error code, None on success."""

    status: Status
    error: str | None = None
    reason: str = ""


Decision = RunStep | AskHuman | Park | Finish


def begin(job: Job) -> Progress:
    """Return the progress of a job that nobody worked on yet."""
    return _come_to(Progress(job.steps[0].step_id), job.steps[0].step_id)


def start_attempt(progress: Progress, attempt: int) -> Progress:
    """Return the progress when an attempt of the current step is about to run; `attempt` is a
    number not used before. before.
    """
    step = progress.step(progress.current)
    return progress.with_step(
        progress.current, replace(step, status=Phase.RUNNING, attempt=attempt)
    )


def progress_after_interruption(progress: Progress) -> Progress:
    """Return the progress after the running attempt was interrupted: the step runs again, no try is
    used up. up.
    """
    step = progress.step(progress.current)
    return progress.with_step(progress.current, replace(step, status=Phase.PENDING))


def progress_after_decision(job: Job, progress: Progress, step_id: str | None = None) -> Progress:
    """Return the progress after a human let the job go on, at the current step or at another: all
    limits begin anew.

    Steps from there on are to be run again; those before keep what they have. The step itself
    starts from the workspace that its last visit started from, whatever was parked in it. KeyError
    for a step that the job has not.
    """
    current = step_id or progress.current
    before = progress.step(current)
    kept = {step.step_id for step in job.steps[: job.index(current)]}
    steps = {
        name: replace(step, tries=0, visits=0)
        if name in kept
        else replace(step, tries=0, visits=0, status=Phase.PENDING, accepted=False)
        for name, step in progress.steps.items()
    }
    arrived = _come_to(Progress(current, steps), current)
    if not before.attempt:
        return arrived
    start = before.first or before.base
    return arrived.with_step(current, replace(arrived.step(current), base=start))


def progress_after_acceptance(progress: Progress) -> Progress:
    """Return the progress after a human took the current step as it is: the job goes on behind it,
    see `behind`.
    """
    step = replace(progress.step(progress.current), status=Status.SUCCESS, accepted=True)
    return progress.with_step(progress.current, step)


def behind(job: Job, progress: Progress) -> tuple[Progress, Decision]:
    """Return what to do behind a step that was accepted."""
    return _advance(job, progress)


def progress_for_continuation(progress: Progress) -> Progress:
    """Return the progress of a step that is to go on where its last attempt stopped: what that did
    is kept.
    """
    step = progress.step(progress.current)
    going_on = replace(
        step,
        status=Phase.PENDING,
        base=step.attempt + 1,
        first=step.first or step.base,
        resumes=step.attempt,
        parks=step.parks + 1,
    )
    return progress.with_step(progress.current, going_on)


def decision_after(
    job: Job,
    progress: Progress,
    kind: OutcomeClass,
    max_attempts: int,
    code: str | None = None,
) -> tuple[Progress, Decision]:
    """Return what to do now that the current step's attempt ended so.

    `max_attempts` is the server's RUNNER_MAX_ATTEMPTS_PER_STEP: tries a visit. `code` is the error
    code of its result.
    """
    step = job.step(progress.current)
    before = progress.step(step.step_id)
    reaction = reaction_to(kind, code)
    tries = before.tries + 1
    if reaction is Reaction.RETRY and tries < min(step.max_retries + 1, max_attempts):
        again = replace(before, tries=tries, status=Phase.RETRYING)
        return progress.with_step(step.step_id, again), RunStep(backoff_s(step, tries))
    if reaction is Reaction.PARK:
        return progress_for_continuation(progress), Park(
            kind, f"step {step.step_id} ended as {kind}"
        )
    ended = progress.with_step(step.step_id, replace(before, tries=tries, status=STATUSES[kind]))
    return _behind(job, ended, step, kind, reaction)


def _behind(
    job: Job, progress: Progress, step: Step, kind: OutcomeClass, reaction: Reaction
) -> tuple[Progress, Decision]:
    match reaction:
        case Reaction.ADVANCE if step.approve_after:
            return progress, AskHuman(f"step {step.step_id} is to be approved")
        case Reaction.ADVANCE:
            return _advance(job, progress)
        case Reaction.ASK:
            return progress, AskHuman(f"step {step.step_id} needs a human ({kind})")
        case Reaction.END:
            return progress, Finish(STATUSES[kind], str(kind), f"{kind} in step {step.step_id}")
        case _:
            return _decision_after_failure(job, progress, step, kind)


def backoff_s(step: Step, tries: int) -> float:
    """Return the delay before the next try: base·2^(tries-1), 30 s at most."""
    return min(step.retry_backoff_s * 2.0 ** (tries - 1), MAX_BACKOFF_S)


def _decision_after_failure(
    job: Job, progress: Progress, step: Step, kind: OutcomeClass
) -> tuple[Progress, Decision]:
    last = step.step_id == job.steps[-1].step_id
    if step.on_failure == "ask_human":
        return progress, AskHuman(f"step {step.step_id} failed ({kind})")
    if step.on_failure.startswith("goto:"):
        return _go_to(progress, step.on_failure.removeprefix("goto:"))
    if step.on_failure == "continue" and not last:
        return _advance(job, progress)
    reason = f"step {step.step_id} ended as {kind}"
    return progress, Finish(STATUSES[kind], "step_failed", reason)


def _advance(job: Job, progress: Progress) -> tuple[Progress, Decision]:
    place = job.index(progress.current) + 1
    if place == len(job.steps):
        return progress, Finish(Status.SUCCESS)
    # going forward is bounded by itself: only the jumps are counted against the limit
    return _come_to(progress, job.steps[place].step_id), RunStep()


def _go_to(progress: Progress, target: str) -> tuple[Progress, Decision]:
    if progress.step(target).visits >= MAX_VISITS:
        reason = f"step {target} was visited {MAX_VISITS} times"
        return progress, Finish(Status.FAILED, "step_failed", reason)
    return _come_to(progress, target), RunStep()


def _come_to(progress: Progress, step_id: str) -> Progress:
    step = progress.step(step_id)
    arrived = StepProgress(
        Phase.PENDING, step.attempt, tries=0, visits=step.visits + 1, base=step.attempt + 1
    )
    return replace(progress.with_step(step_id, arrived), current=step_id)


def handoff(job: Job, step: Step, latest_success: str | None) -> tuple[list[str], list[str]]:
    """Return what a step reads and which patches are applied before it: artifact paths, patch
    paths.

    `latest_success` is the step that succeeded last before this one, None where none did.
    """
    match job.artifact_handoff:
        case Handoff.MANUAL:
            ids = {other.step_id for other in job.steps}
            patches = [patch_of(p) if p in ids else p for p in step.apply_patches_from]
            return list(step.input_artifacts), patches
        case Handoff.PATCH_FIRST:
            return [] if latest_success is None else [patch_of(latest_success)], []
        case Handoff.WORKSPACE_FIRST:
            return [], []


def patch_of(step_id: str) -> str:
    """Return the path of a step's patch below the job's artifacts."""
    return f"steps/{step_id}/patch.diff"
