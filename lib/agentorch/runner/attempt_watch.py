"""The watch over an attempt by its job's owner: it is started, looked after, and settled.

The step's lock says whether the attempt runs. How it ended is in its result; where its process left
none, the launcher's knowledge becomes a result here, so that the attempt is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from agentorch.artifacts.directory import JobArtifacts
from agentorch.core.attempt import Attempt
from agentorch.core.errors import Exit, TryAgain
from agentorch.core.job import Job, Outcome
from agentorch.core.results import StepResult
from agentorch.core.states import OutcomeClass
from agentorch.core.times import rfc3339
from agentorch.launch import unit_end
from agentorch.launch.base import Busy, Stop
from agentorch.ledger import counts
from agentorch.runner.owner import Owner
from agentorch.sandbox import vacate
from agentorch.storage import atomic
from agentorch.storage.json_files import Document
from agentorch.storage.locks import hold_lock
from agentorch.systemd import notify
from agentorch.systemd.message_ids import Message

NOT_KNOWN = "it is not known how its process ended"
# how a launcher says that a step's process ended because the disk can't take what it leaves
DISK_TROUBLE = f"its process exited with {Exit.TRY_AGAIN:d}"


@dataclass(frozen=True)
class Cause:
    """The circumstances of an attempt's end: `began` (RFC 3339), and what it used."""

    attempt: Attempt
    began: str | None
    usage: Mapping[str, float]


class AttemptWatch:
    """The attempts of a claimed job. `fields` are those of the job's journal entries."""

    def __init__(
        self, owner: Owner, job: Job, artifacts: JobArtifacts, fields: Mapping[str, Any]
    ) -> None:
        self.owner = owner
        self.job = job
        self.artifacts = artifacts
        self.fields = fields
        self._stops: dict[str, Stop] = {}

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

    def is_ours(self, attempt: Attempt) -> bool:
        """Return whether this process started the attempt."""
        return attempt.name in self.owner.started

    def say_status(self, attempt: Attempt) -> None:
        """Report to the service manager which attempt the runner is at."""
        step = attempt.step
        words = f"step {step.step_id}, attempt {attempt.number} ({step.agent})"
        notify.notify(f"STATUS=job {self.job.job_id}: {words}")

    # ---- start and look -----------------------------------------------------------------------

    def start(self, attempt: Attempt) -> bool:
        """Start an attempt; return False where an earlier one of its step still runs.

        Raises TryAgain or Misconfigured where nothing was started.
        """
        try:
            self.owner.launcher.submit(attempt)
        except Busy:
            return False
        self.owner.started.add(attempt.name)
        return True

    def is_free(self, step_id: str) -> bool:
        """Return whether nothing of the step runs: its lock can be taken."""
        step = self.artifacts.paths.step(step_id)
        step.attempts.mkdir(0o750, parents=True, exist_ok=True)
        with hold_lock(step.lock, wait=False, owning=False) as descriptor:
            return descriptor is not None

    def look_after(self, attempt: Attempt) -> None:
        """Pass a cancel or a stop on to a running attempt, and end what only its sandbox is.

        bwrap goes on where its starter is killed while it sets up: its first process asks for a
        signal at its parent's death when that is past. It would hold the lock for ever.
        """
        stop = None
        if self.is_cancelled():
            stop = Stop.CANCEL
        elif self.owner.is_leaving():
            stop = Stop.GIVE_BACK
        if stop is not None and attempt.name not in self._stops:
            self._stops[attempt.name] = stop
            self.owner.launcher.cancel(attempt.name, stop)
        if not self._has_process(attempt):
            vacate(self.owner.settings.roots.workspace(self.job.job_id).work)

    def _has_process(self, attempt: Attempt) -> bool:
        """Return whether the step's own process still runs, not only what it started.

        Without a unit, a step is a child of the job's owner, which we are, and ends with it.
        """
        if self.artifacts.paths.step(attempt.step.step_id).unit.exists():
            return True
        running = self.owner.launcher.list().get(attempt.name) == "running"
        return self.is_ours(attempt) and running

    # ---- the end ------------------------------------------------------------------------------

    def settle(
        self, attempt: Attempt, began: str | None
    ) -> tuple[StepResult | None, Mapping[str, float]]:
        """Return the result of an ended attempt, and what it used.

        Where it left no result of its own, what its unit or launcher says is recorded as one. For
        one that another owner started, and of which nobody knows, there is none: None.
        """
        usage = self.owner.launcher.usage(attempt.name)
        cause = Cause(attempt, began, usage)
        step_id, number = attempt.step.step_id, attempt.number
        result = self.artifacts.attempt_result(step_id, number)
        end = self.artifacts.attempt_end(step_id, number)
        if result is not None and result.is_interrupted and end is not None:
            result = self._settle_timeout(cause, end, result)
        elif result is None and end is not None:
            result = self._settle_by_unit(cause, end)
        elif result is None and self.is_ours(attempt) and not self.owner.is_leaving():
            result = self._settle_by_launcher(cause)
        return result, usage

    def _settle_timeout(self, cause: Cause, end: Document, left: StepResult) -> StepResult:
        """Record a time-out where the attempt only says that it was stopped: its time was over."""
        outcome = unit_end.outcome_of(end, cause.attempt.step.timeout_s)
        if outcome is None or outcome.kind is not OutcomeClass.TIMEOUT:
            return left
        return self._record(cause, outcome, left)

    def _settle_by_unit(self, cause: Cause, end: Document) -> StepResult | None:
        if unit_end.has_exit_code(end, Exit.TRY_AGAIN):
            if self.is_ours(cause.attempt):
                raise self._disk_trouble(cause.attempt)
            return None
        outcome = unit_end.outcome_of(end, cause.attempt.step.timeout_s)
        return None if outcome is None else self._record(cause, outcome, None)

    def _settle_by_launcher(self, cause: Cause) -> StepResult:
        how = self.owner.launcher.list().get(cause.attempt.name, NOT_KNOWN)
        if how == DISK_TROUBLE:
            raise self._disk_trouble(cause.attempt)
        return self._record(cause, unit_end.lost_outcome(how), None)

    def _record(self, cause: Cause, outcome: Outcome, left: StepResult | None) -> StepResult:
        """Record the end of an attempt whose process left none: an outcome, so that it is counted.

        `left` is what it left where that is not the truth: its cost is known. Else, where its
        process began at all, nobody knows the cost.
        """
        step, number, now = cause.attempt.step, cause.attempt.number, rfc3339(datetime.now(UTC))
        paths = self.artifacts.paths.step(step.step_id).attempt(number)
        cost = {counts.UNMETERED: 1} if left is None and paths.claim.exists() else {}
        known = {} if left is None else left.metrics
        outcome = replace(
            outcome,
            metrics={**known, **cost, **cause.usage},
            credential=None if left is None else left.credential,
        )
        result = StepResult.from_outcome(
            self.job, step, number, outcome, started_at=cause.began or now, finished_at=now
        )
        paths.directory.mkdir(0o750, exist_ok=True)
        # A crash before this rename leaves no result: the next owner records the unit's end.json
        # again, or runs the step again where only a launcher that died with us knew the end.
        atomic.replace_json(paths.result, result.to_document())
        fields = self.fields_of(cause.attempt)
        self.owner.journal.warning(outcome.summary, Message.LOST, **fields)
        return result

    def _disk_trouble(self, attempt: Attempt) -> TryAgain:
        """Return the trouble of an attempt; the next look finds it interrupted, and not ours."""
        self.owner.started.discard(attempt.name)
        return TryAgain(f"step {attempt.step.step_id}: the disk can't take its result")
