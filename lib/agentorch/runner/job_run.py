"""One claimed job, from the claim to where its queue file goes next.

All that is known stands in state.json, replaced before a step starts and after it ended, so a
JobRun can be begun at any point: by the runner that claimed the job, by the one that found it in
its slot, or again by the same one after the disk was full.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from agentorch.artifacts.directory import JobArtifacts
from agentorch.artifacts.state import FINAL_STATES, PENDING, JobState, Parked
from agentorch.core import conversation, parking, pipeline
from agentorch.core.allowance import Wait
from agentorch.core.attempt import Attempt
from agentorch.core.errors import Misconfigured, TryAgain
from agentorch.core.job import Key
from agentorch.core.pipeline import AskHuman, Decision, Finish, Park, Phase, RunStep
from agentorch.core.results import INTERRUPTED, StepResult
from agentorch.core.states import ENDED, OutcomeClass, State, Status
from agentorch.core.times import rfc3339
from agentorch.jobqueue.finish import finish, give_back, park
from agentorch.jobqueue.jobqueue import current_job
from agentorch.jobqueue.reclaim import outlives, park_end
from agentorch.jobqueue.slots import Slot
from agentorch.ledger import counts, ledger
from agentorch.runner.attendance import AttemptWatch, Means
from agentorch.storage import atomic
from agentorch.systemd.message_ids import Message

CALLED_OFF = Finish(Status.CANCELLED, "cancelled", "cancelled")


class Parting(Enum):
    """The way in which the owner parted with a job."""

    ENDED = auto()
    GIVEN_BACK = auto()
    TO_BE_ADOPTED = auto()


class JobRun:
    """A claimed job."""

    def __init__(self, slot: Slot, key: Key, means: Means) -> None:
        self.slot = slot
        self.key = key
        self.means = means
        self.artifacts = JobArtifacts(slot.queue.roots.artifacts(key.job_id))
        self.job = current_job(self.artifacts.paths)
        self.fields = {"job": self.job.job_id, "project": self.job.project_id}
        self.attendance = AttemptWatch(self.job, self.artifacts, means, self.fields)
        self.went_on = False
        self.state = self.artifacts.read_state() or JobState(
            self.job.job_id, PENDING, pipeline.begin(self.job)
        )

    def run(self) -> Parting:
        """Works on the job until it ends or is given back. Raises TryAgain on a full disk."""
        if self.state.status in FINAL_STATES:
            self.slot.give(self.key, FINAL_STATES[self.state.status])
            return self._rests(FINAL_STATES[self.state.status])
        until = park_end(self.state, datetime.now(UTC))
        held = self.artifacts.paths.hold.exists()
        if until is not None and not held and not self.attendance.is_cancelled():
            self.slot.park(self.key, until)
            return self._rests(State.PARKED)
        self._claim()
        watch = self.means.events.watch(self.artifacts.paths.directory)
        try:
            return self._run_steps()
        finally:
            self.means.events.forget(watch)

    def _claim(self) -> None:
        now = _timestamp()
        self.artifacts.paths.result.unlink(missing_ok=True)
        self.state = replace(
            self.state,
            status=Status.RUNNING,
            started_at=self.state.started_at or now,
            finished_at=None,
            claimed_at=now,
            parked=None,
        )
        self.artifacts.write_state(self.job, self.state)
        slot, taken = self.slot.name, self.key.taken
        words = f"claimed by slot {slot!r}" + (f"; it has lost {taken} owners" if taken else "")
        self.means.journal.info(words, Message.CLAIMED, **self.fields, slot=slot, taken=taken)

    def _run_steps(self) -> Parting:
        unknown = sorted({step.agent for step in self.job.steps} - set(self.means.agents))
        if unknown:
            end = Finish(Status.FAILED, "unknown_agent", f"unknown agent: {', '.join(unknown)}")
            return self._end(end)
        decision = self._adopt()
        while decision is not None:
            if self.attendance.is_cancelled():
                return self._end(CALLED_OFF)
            if (left := self._part(decision)) is not None:
                return left
            if isinstance(decision, RunStep):
                self._pause(decision.after_s)
            if self.means.stopping() or self.artifacts.paths.hold.exists():
                return self._given_back()
            if not self.attendance.is_cancelled():
                decision = self._attempt()
        return self._left_running()

    def _part(self, decision: Decision) -> Parting | None:
        """Part with the job where the decision says so; None: its step is to be run.

        So it is where a budget is used up: whether that is so by now is asked before an attempt.
        Where it was not, and the attempt says again that it is, there is no hurry any more.
        """
        match decision:
            case Finish():
                return self._end(decision)
            case AskHuman(reason):
                return self._end(Finish(Status.NEEDS_HUMAN, "awaiting_human", reason))
            case Park() if self.artifacts.paths.hold.exists():
                return self._given_back()
            case Park(kind, _, until) if until or kind is OutcomeClass.QUOTA or self.went_on:
                return self._park(decision)
            case Park():
                self.went_on = True
        return None

    def _given_back(self) -> Parting:
        if give_back(self.slot, self.key, self.job, self.state) is State.HELD:
            self.means.journal.info("held back", Message.HELD, **self.fields)
            return self._rests(State.HELD)
        self.means.journal.info(
            "given back to the queue: the runner leaves", Message.GIVEN_BACK, **self.fields
        )
        return Parting.GIVEN_BACK

    def _park(self, decision: Park) -> Parting:
        step = self.state.progress.step(self.state.progress.current)
        result = self.artifacts.attempt_result(self.state.progress.current, step.resumes)
        details, summary = ({}, "") if result is None else (result.details, result.summary)
        # a name has whole seconds: at an earlier one it would be parked again, and again
        until = decision.until and whole_after(decision.until)
        until = until or parking.resume_time(details, step.parks, datetime.now(UTC))
        reason = decision.reason if decision.until else f"{decision.reason}: {summary}"
        parked = Parked(rfc3339(until), decision.kind, reason)
        park(self.slot, self.key, self.job, self.state, parked)
        words = f"parked until {parked.until}: {reason}"
        self.means.journal.info(words, Message.PARKED, **self.fields, until=parked.until)
        return self._rests(State.PARKED)

    def _left_running(self) -> Parting:
        """Leave the step running: it goes on, and the next owner waits for it."""
        if not self.means.launcher.outlives:
            return self._given_back()
        self.artifacts.write_state(self.job, replace(self.state, claimed_at=None))
        self.means.journal.info("left its step running", Message.LEFT, **self.fields)
        return Parting.TO_BE_ADOPTED

    def _pause(self, delay_s: float) -> None:
        until = time.monotonic() + delay_s
        while (left := until - time.monotonic()) > 0:
            if self.means.stopping() or self.attendance.is_cancelled():
                return
            self.means.events.wait(left)

    # ---- an attempt ---------------------------------------------------------------------------

    def _adopt(self) -> Decision | None:
        """Return what to do first: an attempt that another owner had started is waited for.

        None: told to leave meanwhile.
        """
        current = self.state.progress.step(self.state.progress.current)
        if not isinstance(current.status, Phase):
            return self._decided_already()
        if current.status is not Phase.RUNNING:
            return RunStep()
        attempt = self._attempt_at(current.attempt)
        self.attendance.tell(attempt)
        if outlives(self.slot.queue.roots, self.state):
            self.means.journal.info(
                "waits for its end", Message.ADOPTED, **self.attendance.fields_of(attempt)
            )
        return self._await(attempt, is_ours=False)

    def _await(self, attempt: Attempt, *, is_ours: bool) -> Decision | None:
        """Wait for an attempt and take in how it ended; None: asked to leave before that."""
        if not self.attendance.wait(attempt, is_ours=is_ours):
            return None
        began = self.state.records[attempt.step.step_id].started_at
        usage = self.attendance.settle(attempt, began, is_ours=is_ours)
        decision = self._absorb()
        self._say_ended(attempt, usage)
        return decision

    def _say_ended(self, attempt: Attempt, usage: Mapping[str, float]) -> None:
        step_id = attempt.step.step_id
        status = self.state.progress.step(step_id).status
        result = self.artifacts.attempt_result(step_id, attempt.number)
        missing = None if result is None else result.metrics.get("journal_missing_lines")
        fields = {**self.attendance.fields_of(attempt), "status": status, **usage}
        words = f"ended: {status}: {self.state.records[step_id].summary}"
        if missing:
            words += f" ({missing} lines that its agent printed are not in the journal)"
        self.means.journal.info(words, Message.ENDED, **fields, missing_lines=missing)

    def _decided_already(self) -> Decision:
        """Return what follows the current step's end: its owner took it in, and died before it
        acted.
        """
        progress = self.state.progress
        step = progress.step(progress.current)
        result = self.artifacts.attempt_result(progress.current, step.attempt)
        if step.accepted:
            self.state = replace(self.state, progress=pipeline.behind(self.job, progress)[0])
            return pipeline.behind(self.job, progress)[1]
        if result is None:
            return RunStep()
        before = progress.with_step(progress.current, replace(step, tries=step.tries - 1))
        limit = self.means.max_attempts
        return pipeline.decision_after(self.job, before, result.outcome, limit, result.error_code)[
            1
        ]

    def _attempt(self) -> Decision | None:
        self.means.check_room()
        before = self.state
        step_id = self.state.progress.current
        number = self.artifacts.next_attempt(step_id, self.state.progress.step(step_id).attempt)
        admission = self.means.admit(self._attempt_at(number))
        if isinstance(admission, Wait):
            return self._waiting(admission)
        progress = pipeline.start_attempt(self.state.progress, number)
        self.state = replace(self.state, progress=progress).record(
            step_id, started_at=_timestamp(), finished_at=None, summary=""
        )
        self.artifacts.write_state(self.job, self.state)
        attempt = self._attempt_at(number)
        self.artifacts.write_allowance(step_id, number, admission)
        self.attendance.tell(attempt)
        try:
            if not self.attendance.submit(attempt):
                return None
        except (TryAgain, Misconfigured):  # nothing was started
            self.state = before
            self.artifacts.write_state(self.job, before)
            raise
        words = f"started: attempt {attempt.number}, {attempt.step.agent} as {attempt.step.role}"
        self.means.journal.info(words, Message.STARTED, **self.attendance.fields_of(attempt))
        return self._await(attempt, is_ours=True)

    def _waiting(self, wait: Wait) -> Decision:
        """Return what becomes of a job whose next attempt may not begin."""
        if wait.until is None:
            hold = {"who": None, "reason": wait.reason, "when": _timestamp()}
            atomic.replace_json(self.artifacts.paths.hold, hold)
            return RunStep()
        return Park(wait.kind, wait.reason, wait.until)

    def _attempt_at(self, number: int) -> Attempt:
        step = self.job.step(self.state.progress.current)
        known = self.state.progress.step(step.step_id)
        return Attempt(self.job, step, number, known.base, known.first, known.resumes)

    # ---- what it came to ----------------------------------------------------------------------

    def _absorb(self) -> Decision:
        """Take in the current attempt's result: publish it, and decide what follows."""
        step_id = self.state.progress.current
        number = self.state.progress.step(step_id).attempt
        result = self.artifacts.attempt_result(step_id, number)
        if result is not None:
            self._count(number, result)
        if result is None or result.is_interrupted:
            return self._note_interruption()
        progress, decision = pipeline.decision_after(
            self.job,
            self.state.progress,
            result.outcome,
            self.means.max_attempts,
            result.error_code,
        )
        if isinstance(decision, AskHuman) and result.question:
            decision = AskHuman(f"{decision.reason}: {result.question}")
        self.artifacts.publish_step(step_id, number)
        if progress.step(step_id).status is not Phase.RETRYING and not isinstance(decision, Park):
            self._remember(step_id, number, result)
        self.state = replace(self.state, progress=progress).record(
            step_id, finished_at=result.finished_at, summary=result.summary
        )
        # of one that is parked it is written with the time: an owner that found it without would
        # run into the same limit at once
        if not isinstance(decision, Park):
            self.artifacts.write_state(self.job, self.state)
        return decision

    def _count(self, number: int, result: StepResult) -> None:
        """In the ledger, before state.json tells of it; a broken one stops no job."""
        is_retry = self.state.progress.step(self.state.progress.current).tries > 0
        end = counts.attempt_end(number, self.job.project_id, result, is_retry=is_retry)
        problem = ledger.count_attempt(self.slot.queue.roots, end)
        if problem is not None:
            words = f"not counted: {problem}"
            self.means.journal.error(words, Message.MISCONFIGURED, **self.fields)

    def _note_interruption(self) -> Decision:
        """Return the step to its start: the attempt left no end of its own, nothing is counted
        against it. it.
        """
        step_id = self.state.progress.current
        self.state = replace(
            self.state, progress=pipeline.progress_after_interruption(self.state.progress)
        )
        self.state = self.state.record(step_id, finished_at=_timestamp(), summary=INTERRUPTED)
        self.artifacts.write_state(self.job, self.state)
        return RunStep()

    def _remember(self, step_id: str, number: int, result: StepResult) -> None:
        """Add the step to context.json, once, however often the end is taken in."""
        mark = f"{step_id}:{number}"
        known = self.artifacts.context_document()
        if known is not None and known.get("after") == mark:
            return
        step = self.job.step(step_id)
        messages = conversation.add_step(
            self.artifacts.read_context(self.job),
            self.job.context_strategy,
            prompt=step.prompt,
            step_id=step_id,
            agent=step.agent,
            role=step.role,
            status=result.status,
            summary=result.summary,
        )
        document = conversation.document(self.job.context_strategy, messages, _timestamp())
        self.artifacts.write_context(self.means.without_secrets({**document, "after": mark}))

    def _end(self, end: Finish) -> Parting:
        state = finish(
            self.slot, self.key, self.job, end, datetime.now(UTC), self.means.job_patch(self.job)
        )
        self.means.journal.info(
            f"{end.status}: {end.reason or 'done'}", Message.FINISHED, **self.fields, queue=state
        )
        return self._rests(state)

    def _rests(self, state: State) -> Parting:
        """Return the job lies somewhere: a cancel that still saw it with us is ours to carry
        out.
        """
        waits = state not in ENDED
        if waits and self.attendance.is_cancelled() and self.slot.take(state, self.key):
            return self._end(CALLED_OFF)
        return Parting.ENDED


def whole_after(moment: datetime) -> datetime:
    """Return the first whole second that is not before a moment. Pure."""
    whole = moment.replace(microsecond=0)
    return whole if whole == moment else whole + timedelta(seconds=1)


def _timestamp() -> str:
    return rfc3339(datetime.now(UTC))
