"""The watch over an attempt by its job's owner: it is started, waited for, and its end made known.

Whether it runs is told by the step's lock. How it ended is told by its result; where its process
left none, by what its launcher knows, which becomes a result here, so that it is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from agentorch.artifacts.directory import JobArtifacts
from agentorch.core.allowance import Admission
from agentorch.core.attempt import Attempt
from agentorch.core.errors import Exit, TryAgain
from agentorch.core.job import Job, Outcome
from agentorch.core.results import StepResult
from agentorch.core.states import OutcomeClass
from agentorch.core.times import rfc3339
from agentorch.launch import unit_end
from agentorch.launch.base import Busy, Launcher, Stop
from agentorch.ledger import counts
from agentorch.runner.events import Events
from agentorch.storage import atomic
from agentorch.storage.json_files import Document
from agentorch.storage.locks import hold_lock
from agentorch.systemd import notify
from agentorch.systemd.journal import Journal
from agentorch.systemd.message_ids import Message

# The close of a step's lock may have been told before it was watched for, and the lock dropped
# after it was tried (events.SecondLooks): nothing else would wake us.
LOOK_AGAIN_S = 2.0
NOT_KNOWN = "it is not known how its process ended"
# how a launcher says that a step's process ended because the disk can't take what it leaves
DISK_TROUBLE = f"its process exited with {Exit.TRY_AGAIN:d}"


@dataclass(frozen=True)
class Means:
    """The services that a runner gives a job to run with.

    `job_patch` gives the whole change of a job's workspace; `check_room` raises TryAgain while too
    little of the disk is free to start anything; `admit` reserves what an attempt may cost.
    `vacate` kills what is still inside a job's sandbox.
    """

    launcher: Launcher
    events: Events
    journal: Journal
    agents: Collection[str]
    stopping: Callable[[], bool]
    job_patch: Callable[[Job], bytes]
    max_attempts: int
    check_room: Callable[[], None]
    without_secrets: Callable[[Document], Document]
    admit: Callable[[Attempt], Admission]
    vacate: Callable[[Job], None]


@dataclass(frozen=True)
class Cause:
    """The circumstances of an attempt's end.
    and what it used.
    """

    attempt: Attempt
    began: str | None
    is_ours: bool
    usage: Mapping[str, float]


class AttemptWatch:
    """The attempts of a claimed job. `fields` are those of the job's journal entries."""

    def __init__(
        self, job: Job, artifacts: JobArtifacts, means: Means, fields: Mapping[str, Any]
    ) -> None:
        self.job = job
        self.artifacts = artifacts
        self.means = means
        self.fields = fields

    def fields_of(self, attempt: Attempt) -> dict[str, Any]:
        """Return the fields of an attempt's journal entries."""
        step = attempt.step
        return {
            **self.fields,
            "step": step.step_id,
            "attempt": attempt.number,
            "agent": step.agent,
        }

    def is_cancelled(self) -> bool:
        """Return whether somebody decided that the job is to end."""
        return self.artifacts.paths.cancel.exists()

    def tell(self, attempt: Attempt) -> None:
        """Says to the service manager what the runner is at."""
        step = attempt.step
        words = f"step {step.step_id}, attempt {attempt.number} ({step.agent})"
        notify.notify(f"STATUS=job {self.job.job_id}: {words}")

    # ---- start and wait -----------------------------------------------------------------------

    def submit(self, attempt: Attempt) -> bool:
        """Start an attempt when an earlier one is gone; return False when asked to leave before
        that.
        """
        try:
            self.means.launcher.submit(attempt)
        except Busy:
            if not self.wait(attempt, is_ours=False):
                return False
            self.means.launcher.submit(attempt)
        return True

    def wait(self, attempt: Attempt, *, is_ours: bool) -> bool:
        """Wait until the step's lock is free, passing on a cancel or a stop meanwhile.

        A sandbox that its step left running is ended: it would hold the lock as long as it likes.
        False: told to leave while an attempt still runs that is somebody else's, or outlives us.
        """
        stays = is_ours and not self.means.launcher.outlives
        step = self.artifacts.paths.step(attempt.step.step_id)
        step.attempts.mkdir(0o750, parents=True, exist_ok=True)
        watch = self.means.events.watch(step.directory)
        told: Stop | None = None
        try:
            while True:
                with hold_lock(step.lock, wait=False, owning=False) as descriptor:
                    if descriptor is not None:
                        return True
                if self.means.stopping() and not stays:
                    return False
                told = self._pass_on(attempt.name, told)
                if not self._is_attended(attempt, is_ours=is_ours):
                    self.means.vacate(self.job)
                self.means.events.wait(LOOK_AGAIN_S)
        finally:
            self.means.events.forget(watch)

    def _is_attended(self, attempt: Attempt, *, is_ours: bool) -> bool:
        """Return whether the step's process still runs, not only what it started.

        bwrap goes on where its starter is killed while it sets up: its first process asks for a
        signal at its parent's death when that is past. Without a unit, a step is a child of the
        job's owner, which we are, and ends with it.
        """
        if self.artifacts.paths.step(attempt.step.step_id).unit.exists():
            return True
        return is_ours and self.means.launcher.list().get(attempt.name) == "running"

    def _pass_on(self, name: str, told: Stop | None) -> Stop | None:
        why = (
            Stop.CANCEL
            if self.is_cancelled()
            else Stop.GIVE_BACK
            if self.means.stopping()
            else None
        )
        if why is not None and told is None:
            self.means.launcher.cancel(name, why)
            return why
        return told

    # ---- the end ------------------------------------------------------------------------------

    def settle(self, attempt: Attempt, began: str | None, *, is_ours: bool) -> Mapping[str, float]:
        """Return what an ended attempt used; record a result where it left none of its own.
        told.

        Of one that another owner had started, and of which nobody knows, nothing is told.
        """
        usage = self.means.launcher.usage(attempt.name)
        cause = Cause(attempt, began, is_ours, usage)
        step_id, number = attempt.step.step_id, attempt.number
        result = self.artifacts.attempt_result(step_id, number)
        end = self.artifacts.attempt_end(step_id, number)
        if result is not None and result.is_interrupted and end is not None:
            self._record_timeout(cause, end)
        elif result is None and end is not None:
            self._told_by_unit(cause, end)
        elif result is None and is_ours and not self.means.stopping():
            self._told_by_launcher(cause)
        return usage

    def _record_timeout(self, cause: Cause, end: Document) -> None:
        """Record a time-out where the attempt only says that it was asked to leave because its time
        was over.
        """
        outcome = unit_end.outcome_of(end, cause.attempt.step.timeout_s)
        if outcome is not None and outcome.kind is OutcomeClass.TIMEOUT:
            self._record(cause, outcome)

    def _told_by_unit(self, cause: Cause, end: Document) -> None:
        if unit_end.has_exit_code(end, Exit.TRY_AGAIN):
            if cause.is_ours:
                raise _disk_trouble(cause.attempt)
            return
        outcome = unit_end.outcome_of(end, cause.attempt.step.timeout_s)
        if outcome is not None:
            self._record(cause, outcome)

    def _told_by_launcher(self, cause: Cause) -> None:
        how = self.means.launcher.list().get(cause.attempt.name, NOT_KNOWN)
        if how == DISK_TROUBLE:
            raise _disk_trouble(cause.attempt)
        self._record(cause, unit_end.lost_outcome(how))

    def _record(self, cause: Cause, outcome: Outcome) -> None:
        """Record the end of an attempt whose process left none: an outcome, so that it is counted.

        Where it left one that is not the truth, it had told what it cost; else, where its process
        began at all, nobody knows that.
        """
        step, number, now = cause.attempt.step, cause.attempt.number, rfc3339(datetime.now(UTC))
        paths = self.artifacts.paths.step(step.step_id).attempt(number)
        left = self.artifacts.attempt_result(step.step_id, number)
        cost = {counts.UNMETERED: 1} if left is None and paths.claim.exists() else {}
        known = {} if left is None else left.metrics
        outcome = replace(
            outcome,
            metrics={**known, **cost, **cause.usage},
            credential=None if left is None else left.credential,
        )
        result = StepResult.of_outcome(
            self.job, step, number, outcome, started_at=cause.began or now, finished_at=now
        )
        paths.directory.mkdir(0o750, exist_ok=True)
        atomic.replace_json(paths.result, result.to_document())
        fields = self.fields_of(cause.attempt)
        self.means.journal.warning(outcome.summary, Message.LOST, **fields)


def _disk_trouble(attempt: Attempt) -> TryAgain:
    return TryAgain(f"step {attempt.step.step_id}: the disk can't take its result")
