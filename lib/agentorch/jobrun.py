"""One job in the hands of its owner, from the claim to where its queue file goes next.

All that is known stands in state.json, replaced before a step starts and after it ended, so a
JobRun can be begun at any point: by the runner that claimed the job, by the one that found it in
its slot, or again by the same one after the disk was full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

from agentorch import atomic, context, counts, death, ledger, pipeline, sd_daemon
from agentorch.artifacts import (
    FINAL_STATES,
    PENDING,
    JobArtifacts,
    JobState,
    step_result,
)
from agentorch.documents import Document
from agentorch.errors import Exit, Misconfigured, TryAgain
from agentorch.events import Events
from agentorch.finish import finish, give_back
from agentorch.job import Job, Key, Outcome
from agentorch.jobqueue import flocked, read_job
from agentorch.journal import Journal
from agentorch.launch.base import Attempt, Busy, Launcher, Stop
from agentorch.messages import Message
from agentorch.pipeline import AskHuman, Decision, Finish, Phase, RunStep
from agentorch.reclaim import outlives
from agentorch.slots import Slot
from agentorch.states import OutcomeClass, Status
from agentorch.times import rfc3339

INTERRUPTED = "interrupted"
# The close of a step's lock may have been told before it was watched for, and the lock dropped
# after it was tried (events.SecondLooks): nothing else would wake us.
LOOK_AGAIN_S = 2.0
NOT_KNOWN = "it is not known how its process ended"
# how a launcher says that a step's process ended because the disk can't take what it leaves
DISK_TROUBLE = f"its process exited with {Exit.TRY_AGAIN:d}"


class Left(Enum):
    """How the owner parted with a job."""

    ENDED = auto()
    GIVEN_BACK = auto()
    TO_BE_ADOPTED = auto()


@dataclass(frozen=True)
class Means:
    """What a runner gives a job to run with.

    `job_patch` gives the whole change of a job's workspace; `check_room` raises TryAgain while too
    little of the disk is free to start anything.
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


class JobRun:
    """A claimed job."""

    def __init__(self, slot: Slot, key: Key, means: Means) -> None:
        self.slot = slot
        self.key = key
        self.means = means
        self.job = read_job(slot.path(key))
        self.artifacts = JobArtifacts(slot.queue.roots.artifacts(self.job.job_id))
        self.fields = {"job": self.job.job_id, "project": self.job.project_id}
        self.state = self.artifacts.read_state() or JobState(
            self.job.job_id, PENDING, pipeline.begin(self.job)
        )

    def run(self) -> Left:
        """Works on the job until it ends or is given back. Raises TryAgain on a full disk."""
        if self.state.status in FINAL_STATES:
            self.slot.give(self.key, FINAL_STATES[self.state.status])
            return Left.ENDED
        self._claimed()
        watch = self.means.events.watch(self.artifacts.paths.directory)
        try:
            return self._run_steps()
        finally:
            self.means.events.forget(watch)

    def _claimed(self) -> None:
        now = _now()
        self.artifacts.paths.result.unlink(missing_ok=True)
        self.state = replace(
            self.state,
            status=Status.RUNNING,
            started_at=self.state.started_at or now,
            finished_at=None,
            claimed_at=now,
        )
        self.artifacts.write_state(self.job, self.state)
        self.means.journal.info(
            "claimed", Message.CLAIMED, **self.fields, slot=self.slot.name, taken=self.key.taken
        )

    def _run_steps(self) -> Left:
        unknown = sorted({step.agent for step in self.job.steps} - set(self.means.agents))
        if unknown:
            end = Finish(Status.FAILED, "unknown_agent", f"unknown agent: {', '.join(unknown)}")
            return self._end(end)
        decision = self._adopted()
        while True:
            if decision is None:
                return self._left_running()
            if self._cancelled():
                return self._end(Finish(Status.CANCELLED, "cancelled", "cancelled"))
            match decision:
                case Finish():
                    return self._end(decision)
                case AskHuman(reason):
                    return self._end(Finish(Status.NEEDS_HUMAN, "awaiting_human", reason))
                case RunStep(after_s):
                    self._pause(after_s)
            if self.means.stopping():
                return self._given_back()
            if not self._cancelled():
                decision = self._attempt()

    def _given_back(self) -> Left:
        give_back(self.slot, self.key, self.job, self.state)
        self.means.journal.info("given back", Message.GIVEN_BACK, **self.fields)
        return Left.GIVEN_BACK

    def _left_running(self) -> Left:
        """Told to leave while the step runs: it goes on, and the next owner waits for it."""
        if not self.means.launcher.outlives:
            return self._given_back()
        self.artifacts.write_state(self.job, replace(self.state, claimed_at=None))
        self.means.journal.info("left its step running", Message.LEFT, **self.fields)
        return Left.TO_BE_ADOPTED

    def _pause(self, delay_s: float) -> None:
        until = time.monotonic() + delay_s
        while (left := until - time.monotonic()) > 0:
            if self.means.stopping() or self._cancelled():
                return
            self.means.events.wait(left)

    def _cancelled(self) -> bool:
        return self.artifacts.paths.cancel.exists()

    # ---- an attempt ---------------------------------------------------------------------------

    def _adopted(self) -> Decision | None:
        """What to do first: an attempt that another owner had started is waited for.

        None: told to leave meanwhile.
        """
        current = self.state.progress.of(self.state.progress.current)
        if not isinstance(current.status, Phase):
            return self._decided_already()
        if current.status is not Phase.RUNNING:
            return RunStep()
        attempt = self._attempt_at(current.attempt)
        self._tell(attempt)
        if outlives(self.slot.queue.roots, self.state):
            self.means.journal.info("waits for its end", Message.ADOPTED, **self._fields(attempt))
        return self._awaited(attempt, is_ours=False)

    def _awaited(self, attempt: Attempt, *, is_ours: bool) -> Decision | None:
        """Waits for an attempt and takes in how it ended. None: told to leave before that."""
        if not self._wait_for_step(attempt, is_ours=is_ours):
            return None
        usage = self._settled(attempt, is_ours=is_ours)
        decision = self._absorbed()
        status = self.state.progress.of(attempt.step.step_id).status
        fields = {**self._fields(attempt), "status": status, **usage}
        self.means.journal.info("ended", Message.ENDED, **fields)
        return decision

    def _decided_already(self) -> Decision:
        """What follows the current step's end: its owner took it in, and died before it acted."""
        progress = self.state.progress
        step = progress.of(progress.current)
        result = self.artifacts.attempt_result(progress.current, step.attempt)
        if result is None:
            return RunStep()
        before = progress.put(progress.current, replace(step, tries=step.tries - 1))
        kind = OutcomeClass(result["outcome"])
        return pipeline.after(self.job, before, kind, self.means.max_attempts)[1]

    def _attempt(self) -> Decision | None:
        self.means.check_room()
        before = self.state
        step_id = self.state.progress.current
        number = self.artifacts.next_attempt(step_id, self.state.progress.of(step_id).attempt)
        progress = pipeline.started(self.state.progress, number)
        self.state = replace(self.state, progress=progress).record(
            step_id, started_at=_now(), finished_at=None, summary=""
        )
        self.artifacts.write_state(self.job, self.state)
        attempt = self._attempt_at(number)
        self._tell(attempt)
        try:
            if not self._submitted(attempt):
                return None
        except (TryAgain, Misconfigured):  # nothing was started
            self.state = before
            self.artifacts.write_state(self.job, before)
            raise
        self.means.journal.info("started", Message.STARTED, **self._fields(attempt))
        return self._awaited(attempt, is_ours=True)

    def _fields(self, attempt: Attempt) -> dict[str, Any]:
        step = attempt.step
        return {
            **self.fields,
            "step": step.step_id,
            "attempt": attempt.number,
            "agent": step.agent,
        }

    def _submitted(self, attempt: Attempt) -> bool:
        """Starts an attempt when an earlier one is gone; False: told to leave before that."""
        try:
            self.means.launcher.submit(attempt)
        except Busy:
            if not self._wait_for_step(attempt, is_ours=False):
                return False
            self.means.launcher.submit(attempt)
        return True

    def _tell(self, attempt: Attempt) -> None:
        step = attempt.step
        words = f"step {step.step_id}, attempt {attempt.number} ({step.agent})"
        sd_daemon.notify(f"STATUS=job {self.job.job_id}: {words}")

    def _settled(self, attempt: Attempt, *, is_ours: bool) -> Mapping[str, float]:
        """What an attempt used that has ended; where it left no end of its own, the cause is told.

        Of one that another owner had started, and of which nobody knows, nothing is told.
        """
        usage = self.means.launcher.usage(attempt.name)
        step_id, number = attempt.step.step_id, attempt.number
        result = self.artifacts.attempt_result(step_id, number)
        if result is not None and not _is_interrupted(result):
            return usage
        end = self.artifacts.attempt_end(step_id, number)
        if end is not None:
            self._told_by_unit(attempt, end, usage, is_ours=is_ours, is_told=result is not None)
        elif result is None and is_ours and not self.means.stopping():
            how = self.means.launcher.list().get(attempt.name, NOT_KNOWN)
            if how == DISK_TROUBLE:
                raise self._disk_trouble(attempt)
            self._record(attempt, death.lost(how), usage)
        return usage

    def _told_by_unit(
        self,
        attempt: Attempt,
        end: Document,
        usage: Mapping[str, float],
        *,
        is_ours: bool,
        is_told: bool,
    ) -> None:
        if not is_told and death.exited_with(end, Exit.TRY_AGAIN):
            if is_ours:
                raise self._disk_trouble(attempt)
            return
        outcome = death.outcome_of(end, attempt.step.timeout_s)
        # one that was told to leave because its time was over says only that it was told to leave
        if outcome is not None and (not is_told or outcome.kind is OutcomeClass.TIMEOUT):
            self._record(attempt, outcome, usage)

    def _disk_trouble(self, attempt: Attempt) -> TryAgain:
        return TryAgain(f"step {attempt.step.step_id}: the disk can't take its result")

    def _record(self, attempt: Attempt, outcome: Outcome, usage: Mapping[str, float]) -> None:
        """The end of an attempt whose process left none: an outcome, so that it is counted."""
        outcome = replace(outcome, metrics=usage)
        started = self.state.records[attempt.step.step_id].started_at or _now()
        result = step_result(
            self.job, attempt.step, attempt.number, outcome, started_at=started, finished_at=_now()
        )
        paths = self.artifacts.paths.step(attempt.step.step_id).attempt(attempt.number)
        paths.directory.mkdir(0o750, exist_ok=True)
        atomic.replace_json(paths.result, result)
        self.means.journal.warning(
            outcome.summary, Message.LOST, **self.fields, step=attempt.step.step_id
        )

    def _attempt_at(self, number: int) -> Attempt:
        step = self.job.step(self.state.progress.current)
        base = self.state.progress.of(step.step_id).base
        return Attempt(self.job, step, number, base)

    def _wait_for_step(self, attempt: Attempt, *, is_ours: bool) -> bool:
        """Waits until the step's lock is free, passing on a cancel or a stop meanwhile.

        False: told to leave while an attempt still runs that is somebody else's, or outlives us.
        """
        stays = is_ours and not self.means.launcher.outlives
        step = self.artifacts.paths.step(attempt.step.step_id)
        step.attempts.mkdir(0o750, parents=True, exist_ok=True)
        watch = self.means.events.watch(step.directory)
        told: Stop | None = None
        try:
            while True:
                with flocked(step.lock, wait=False, owning=False) as descriptor:
                    if descriptor is not None:
                        return True
                if self.means.stopping() and not stays:
                    return False
                told = self._pass_on(attempt.name, told)
                self.means.events.wait(LOOK_AGAIN_S)
        finally:
            self.means.events.forget(watch)

    def _pass_on(self, name: str, told: Stop | None) -> Stop | None:
        why = (
            Stop.CANCEL if self._cancelled() else Stop.GIVE_BACK if self.means.stopping() else None
        )
        if why is not None and told is None:
            self.means.launcher.cancel(name, why)
            return why
        return told

    # ---- what it came to ----------------------------------------------------------------------

    def _absorbed(self) -> Decision:
        """Takes in the current attempt's result: publishes it, and decides what follows."""
        step_id = self.state.progress.current
        number = self.state.progress.of(step_id).attempt
        result = self.artifacts.attempt_result(step_id, number)
        if result is not None:
            self._count(number, result)
        if result is None or _is_interrupted(result):
            return self._interrupted()
        kind = OutcomeClass(result["outcome"])
        progress, decision = pipeline.after(
            self.job, self.state.progress, kind, self.means.max_attempts
        )
        if isinstance(decision, AskHuman) and result.get("question"):
            decision = AskHuman(f"{decision.reason}: {result['question']}")
        self.artifacts.publish_step(step_id, number)
        if not (isinstance(decision, RunStep) and progress.of(step_id).status is Phase.RETRYING):
            self._remember(step_id, number, result)
        self.state = replace(self.state, progress=progress).record(
            step_id, finished_at=result["finished_at"], summary=result["summary"]
        )
        self.artifacts.write_state(self.job, self.state)
        return decision

    def _count(self, number: int, result: Document) -> None:
        """In the ledger, before state.json tells of it; a broken one stops no job."""
        is_retry = self.state.progress.of(self.state.progress.current).tries > 0
        end = counts.attempt_end(number, self.job.project_id, result, is_retry=is_retry)
        problem = ledger.count_attempt(self.slot.queue.roots, end)
        if problem is not None:
            words = f"not counted: {problem}"
            self.means.journal.error(words, Message.MISCONFIGURED, **self.fields)

    def _interrupted(self) -> Decision:
        """The attempt left no end of its own: run the step again; nothing is counted against it."""
        step_id = self.state.progress.current
        self.state = replace(self.state, progress=pipeline.interrupted(self.state.progress))
        self.state = self.state.record(step_id, finished_at=_now(), summary=INTERRUPTED)
        self.artifacts.write_state(self.job, self.state)
        return RunStep()

    def _remember(self, step_id: str, number: int, result: Document) -> None:
        """Adds the step to context.json, once, however often the end is taken in."""
        mark = f"{step_id}:{number}"
        known = self.artifacts.context_document()
        if known is not None and known.get("after") == mark:
            return
        step = self.job.step(step_id)
        messages = context.after_step(
            self.artifacts.read_context(self.job),
            self.job.context_strategy,
            prompt=step.prompt,
            step_id=step_id,
            agent=step.agent,
            role=step.role,
            status=result["status"],
            summary=result["summary"],
        )
        document = context.document(self.job.context_strategy, messages, _now())
        self.artifacts.write_context(self.means.without_secrets({**document, "after": mark}))

    def _end(self, end: Finish) -> Left:
        state = finish(
            self.slot, self.key, self.job, end, datetime.now(UTC), self.means.job_patch(self.job)
        )
        self.means.journal.info(
            f"{end.status}: {end.reason or 'done'}", Message.FINISHED, **self.fields, queue=state
        )
        return Left.ENDED


def _is_interrupted(result: Document) -> bool:
    return (result.get("error") or {}).get("code") == INTERRUPTED


def _now() -> str:
    return rfc3339(datetime.now(UTC))
