"""One job in the hands of its owner, from the claim to where its queue file goes next.

All that is known stands in state.json, replaced before a step starts and after it ended, so a
JobRun can be begun at any point: by the runner that claimed the job, by the one that found it in
its slot, or again by the same one after the disk was full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum, auto

from agentorch import atomic, context, pipeline
from agentorch.artifacts import (
    FINAL_STATES,
    PENDING,
    JobArtifacts,
    JobState,
    step_result,
)
from agentorch.documents import Document
from agentorch.errors import Exit, TryAgain
from agentorch.events import Events
from agentorch.finish import finish, give_back
from agentorch.job import Job, Key, Outcome
from agentorch.jobqueue import flocked, read_job
from agentorch.journal import Journal
from agentorch.launch.base import Attempt, Launcher, Stop
from agentorch.launch.fork import Busy
from agentorch.messages import Message
from agentorch.pipeline import AskHuman, Decision, Finish, Phase, RunStep
from agentorch.slots import Slot
from agentorch.states import OutcomeClass, Status
from agentorch.times import rfc3339

INTERRUPTED = "interrupted"
# The close of a step's lock may have been told before it was watched for, and the lock dropped
# after it was tried (events.SecondLooks): nothing else would wake us.
LOOK_AGAIN_S = 2.0
# how a launcher says that a step's process ended because the disk can't take what it leaves
DISK_TROUBLE = f"its process exited with {Exit.TRY_AGAIN:d}"


class Left(Enum):
    """How the owner parted with a job."""

    ENDED = auto()
    GIVEN_BACK = auto()


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
                give_back(self.slot, self.key, self.job, self.state)
                self.means.journal.info("given back", Message.GIVEN_BACK, **self.fields)
                return Left.GIVEN_BACK
            if not self._cancelled():
                decision = self._attempt()

    def _pause(self, delay_s: float) -> None:
        until = time.monotonic() + delay_s
        while (left := until - time.monotonic()) > 0:
            if self.means.stopping() or self._cancelled():
                return
            self.means.events.wait(left)

    def _cancelled(self) -> bool:
        return self.artifacts.paths.cancel.exists()

    # ---- an attempt ---------------------------------------------------------------------------

    def _adopted(self) -> Decision:
        """What to do first: an attempt that another owner had started is waited for."""
        current = self.state.progress.of(self.state.progress.current)
        if not isinstance(current.status, Phase):
            return self._decided_already()
        if current.status is not Phase.RUNNING:
            return RunStep()
        if not self._wait_for_step(self._attempt_at(current.attempt)):
            return RunStep()
        return self._absorbed()

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

    def _attempt(self) -> Decision:
        self.means.check_room()
        step_id = self.state.progress.current
        number = self.artifacts.next_attempt(step_id, self.state.progress.of(step_id).attempt)
        progress = pipeline.started(self.state.progress, number)
        self.state = replace(self.state, progress=progress).record(
            step_id, started_at=_now(), finished_at=None, summary=""
        )
        self.artifacts.write_state(self.job, self.state)
        attempt = self._attempt_at(number)
        fields = {
            **self.fields,
            "step": step_id,
            "attempt": attempt.number,
            "agent": attempt.step.agent,
        }
        self.means.journal.info("started", Message.STARTED, **fields)
        try:
            name = self.means.launcher.submit(attempt)
        except Busy:
            if not self._wait_for_step(attempt):
                return RunStep()
            name = self.means.launcher.submit(attempt)
        self._wait_for_step(attempt, name)
        usage = self.means.launcher.usage(name)
        how = self.means.launcher.list().get(name, "it is not known how its process ended")
        if self._has_no_result(attempt) and not self.means.stopping():
            self._record_lost(attempt, how)
        decision = self._absorbed()
        status = self.state.progress.of(step_id).status
        self.means.journal.info("ended", Message.ENDED, **fields, status=status, **usage)
        return decision

    def _has_no_result(self, attempt: Attempt) -> bool:
        return self.artifacts.attempt_result(attempt.step.step_id, attempt.number) is None

    def _record_lost(self, attempt: Attempt, how: str) -> None:
        """The attempt's process died while we lived: an outcome, so that it is counted."""
        if how == DISK_TROUBLE:
            raise TryAgain(f"step {attempt.step.step_id}: the disk can't take its result")
        outcome = Outcome(OutcomeClass.INFRA, f"left no result: {how}", error="exception")
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

    def _wait_for_step(self, attempt: Attempt, name: str | None = None) -> bool:
        """Waits until the step's lock is free, passing on a cancel or a stop meanwhile.

        False: told to leave while somebody else's attempt still runs.
        """
        step = self.artifacts.paths.step(attempt.step.step_id)
        step.attempts.mkdir(0o750, parents=True, exist_ok=True)
        watch = self.means.events.watch(step.directory)
        told: Stop | None = None
        try:
            while True:
                with flocked(step.lock, wait=False, owning=False) as descriptor:
                    if descriptor is not None:
                        return True
                if name is None and self.means.stopping():
                    return False
                told = self._pass_on(name, told)
                self.means.events.wait(LOOK_AGAIN_S)
        finally:
            self.means.events.forget(watch)

    def _pass_on(self, name: str | None, told: Stop | None) -> Stop | None:
        why = (
            Stop.CANCEL if self._cancelled() else Stop.GIVE_BACK if self.means.stopping() else None
        )
        if name is not None and why is not None and told is None:
            self.means.launcher.cancel(name, why)
            return why
        return told

    # ---- what it came to ----------------------------------------------------------------------

    def _absorbed(self) -> Decision:
        """Takes in the current attempt's result: publishes it, and decides what follows."""
        step_id = self.state.progress.current
        number = self.state.progress.of(step_id).attempt
        result = self.artifacts.attempt_result(step_id, number)
        if result is None or (result.get("error") or {}).get("code") == INTERRUPTED:
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


def _now() -> str:
    return rfc3339(datetime.now(UTC))
