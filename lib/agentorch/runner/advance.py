"""The progress of a claimed job: one function, `advance`, that never waits.

Everything that is known of a job is on disk: state.json is replaced before a step starts and after
it ended, an attempt's end is in its result, whether it runs is said by its step's lock. So
`advance` can be called at any moment, by the owner that claimed the job, by the one that found it
in its slot, or again by the same one after the disk was full: it does all that can be done now and
returns what the job waits for. A slot drives it today; whoever watches many jobs could.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agentorch.artifacts.directory import JobArtifacts
from agentorch.artifacts.state import FINAL_STATES, PENDING, JobState, Parked
from agentorch.attempt import start
from agentorch.attempt.admission import admit
from agentorch.attempt.place import secret_values
from agentorch.core import conversation, parking, pipeline
from agentorch.core.allowance import Admission, Wait
from agentorch.core.attempt import Attempt
from agentorch.core.errors import Misconfigured, TryAgain
from agentorch.core.job import Key
from agentorch.core.pipeline import AskHuman, Decision, Finish, Park, Phase, RunStep
from agentorch.core.results import INTERRUPTED, StepResult
from agentorch.core.states import ENDED, OutcomeClass, State, Status
from agentorch.core.times import moment_of, rfc3339
from agentorch.jobqueue.finish import finish, give_back, park
from agentorch.jobqueue.jobqueue import current_job
from agentorch.jobqueue.reclaim import outlives, park_end
from agentorch.ledger import counts, ledger
from agentorch.redaction.redactor import Redactor, without_secrets
from agentorch.runner.attempt_watch import AttemptWatch
from agentorch.runner.owner import Owner
from agentorch.runner.waits import (
    Finished,
    Left,
    Rest,
    Waits,
    WaitsForAttempt,
    WaitsForLimit,
    WaitsForPerson,
    WaitsForTime,
)
from agentorch.storage import atomic
from agentorch.systemd.message_ids import Message

CANCELLED = Finish(Status.CANCELLED, "cancelled", "cancelled")


def advance(job: ClaimedJob) -> Waits | Rest:
    """Do all that can be done now for a claimed job; return what it waits for.

    Where that is an attempt or a time, the job is still ours: call it again when it has come.
    Raises TryAgain on a full disk, and Damaged where a file of the job can't be read; then it can
    be called again, too.
    """
    return job.advance()


class ClaimedJob:
    """A job of ours, made from what is on disk: it may be thrown away and made again any time."""

    def __init__(self, owner: Owner, key: Key) -> None:
        self.owner = owner
        self.key = key
        self.artifacts = JobArtifacts(owner.settings.roots.artifacts(key.job_id))
        self.job = current_job(self.artifacts.paths)
        self.fields = {"job": self.job.job_id, "project": self.job.project_id}
        self.watch = AttemptWatch(owner, self.job, self.artifacts, self.fields)
        self.is_begun = False
        self.asked_budget = False
        self.state = self.artifacts.read_state() or JobState(
            self.job.job_id, PENDING, pipeline.begin(self.job)
        )

    def advance(self) -> Waits | Rest:
        """See the function of this name."""
        if not self.is_begun and (rest := self._begin()) is not None:
            return rest
        while (waits := self._take_turn()) is None:
            pass  # something changed on disk: look again
        return waits

    def _take_turn(self) -> Waits | Rest | None:
        """Do the next thing; return what to wait for, None: nothing."""
        decision = self._next_decision()
        if isinstance(decision, WaitsForAttempt | Left):
            return decision
        rest = self._end(CANCELLED) if self.watch.is_cancelled() else self._part(decision)
        if rest is not None:
            return rest
        if self.owner.is_leaving() or self._is_held():
            return self._give_back()
        left_s = self._backoff_left_s()
        if left_s > 0:
            return WaitsForTime(left_s)
        waits = self._start_attempt()
        return self._part_from_admission(waits) if isinstance(waits, Wait) else waits

    # ---- the beginning ------------------------------------------------------------------------

    def _begin(self) -> Rest | None:
        """Take the job in hand; return its rest where it has ended, or is parked, already.

        Its owner died after state.json said so, and before the queue file's rename: that is all
        that is left to do.
        """
        if self.state.status in FINAL_STATES:
            target = FINAL_STATES[self.state.status]
            self.owner.slot.give(self.key, target)
            return self._rest(target)
        until = park_end(self.state, datetime.now(UTC))
        if until is not None and not self._is_held() and not self.watch.is_cancelled():
            self.owner.slot.park(self.key, until)
            return self._rest(State.PARKED, until)
        self._claim()
        self.is_begun = True
        unknown = sorted({step.agent for step in self.job.steps} - set(self.owner.agents.names()))
        if unknown:
            words = f"unknown agent: {', '.join(unknown)}"
            return self._end(Finish(Status.FAILED, "unknown_agent", words))
        attempt = self._running_attempt()
        if attempt is not None:
            self.watch.say_status(attempt)
            if outlives(self.owner.settings.roots, self.state):
                fields = self.watch.fields_of(attempt)
                self.owner.journal.info("waits for its end", Message.ADOPTED, **fields)
        return None

    def _claim(self) -> None:
        now = _timestamp()
        # The result of an earlier end goes first: a crash after it leaves a job without a result,
        # which runs; the other way round a running job would still have the old one.
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
        slot, taken = self.owner.slot.name, self.key.taken
        words = f"claimed by slot {slot!r}" + (f"; it has lost {taken} owners" if taken else "")
        self.owner.journal.info(words, Message.CLAIMED, **self.fields, slot=slot, taken=taken)

    # ---- what is next -------------------------------------------------------------------------

    def _next_decision(self) -> Decision | WaitsForAttempt | Left:
        """Return what follows from what is on disk; or that an attempt still runs."""
        attempt = self._running_attempt()
        if attempt is not None:
            if self.watch.is_free(attempt.step.step_id):
                return self._take_in(attempt)
            if self.owner.is_leaving() and not self._ends_with_us(attempt):
                return self._leave_running()
            self.watch.look_after(attempt)
            return WaitsForAttempt(attempt)
        current = self.state.progress.step(self.state.progress.current)
        return RunStep() if isinstance(current.status, Phase) else self._repeat_decision()

    def _running_attempt(self) -> Attempt | None:
        """Return the attempt that state.json says is running; None where none is."""
        current = self.state.progress.step(self.state.progress.current)
        return self._attempt_at(current.attempt) if current.status is Phase.RUNNING else None

    def _ends_with_us(self, attempt: Attempt) -> bool:
        """Return whether the attempt is a child of this process: it is ended, and waited for."""
        return self.watch.is_ours(attempt) and not self.owner.launcher.outlives

    def _repeat_decision(self) -> Decision:
        """Return what follows the current step's end, where its owner took the end in, published
        it, and died before it acted.
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
        return self._decide(before, result)[1]

    def _decide(
        self, progress: pipeline.Progress, result: StepResult
    ) -> tuple[pipeline.Progress, Decision]:
        return pipeline.decision_after(
            self.job,
            progress,
            result.outcome,
            self.owner.settings.runner_max_attempts_per_step,
            result.error_code,
        )

    def _backoff_left_s(self) -> float:
        """Return how long the current step's next try is still to be waited for.

        Counted from the end of the last one, which is on disk; never longer than the whole delay,
        whatever the clock did meanwhile.
        """
        step_id = self.state.progress.current
        known = self.state.progress.step(step_id)
        record = self.state.records.get(step_id)
        if known.status is not Phase.RETRYING or record is None or record.finished_at is None:
            return 0.0
        whole_s = pipeline.backoff_s(self.job.step(step_id), known.tries)
        past_s = (datetime.now(UTC) - moment_of(record.finished_at)).total_seconds()
        return min(whole_s, max(0.0, whole_s - past_s))

    # ---- an attempt ---------------------------------------------------------------------------

    def _attempt_at(self, number: int) -> Attempt:
        step = self.job.step(self.state.progress.current)
        known = self.state.progress.step(step.step_id)
        return Attempt(self.job, step, number, known.base, known.first, known.resumes)

    def _start_attempt(self) -> WaitsForAttempt | Wait:
        """Start the current step's next attempt; return it, or why it may not begin."""
        self.owner.check_room()
        before = self.state
        step_id = self.state.progress.current
        number = self.artifacts.next_attempt(step_id, self.state.progress.step(step_id).attempt)
        if not self.watch.is_free(step_id):  # what an attempt left running still has its lock
            self.watch.look_after(self._attempt_at(number))
            return WaitsForAttempt(self._attempt_at(number))
        admission = self._admit(self._attempt_at(number))
        if isinstance(admission, Wait):
            return admission
        progress = pipeline.start_attempt(self.state.progress, number)
        self.state = replace(self.state, progress=progress).record(
            step_id, started_at=_timestamp(), finished_at=None, summary=""
        )
        # state.json first: a crash between this and the start leaves an attempt that never began.
        # Its lock is free and it has no result, so the next owner runs the step again, as another.
        self.artifacts.write_state(self.job, self.state)
        attempt = self._attempt_at(number)
        self.artifacts.write_allowance(step_id, number, admission)
        self.watch.say_status(attempt)
        try:
            if not self.watch.start(attempt):
                return WaitsForAttempt(attempt)
        except (TryAgain, Misconfigured):  # nothing was started
            self.state = before
            self.artifacts.write_state(self.job, before)
            raise
        words = f"started: attempt {attempt.number}, {attempt.step.agent} as {attempt.step.role}"
        self.owner.journal.info(words, Message.STARTED, **self.watch.fields_of(attempt))
        return WaitsForAttempt(attempt)

    def _admit(self, attempt: Attempt) -> Admission:
        owner = self.owner
        found = admit(owner.settings, owner.agents, attempt, datetime.now(UTC))
        for words in found.warnings:
            owner.journal.warning(words, Message.BUDGET_NEAR, job=attempt.job.job_id)
        return found.admission

    def _take_in(self, attempt: Attempt) -> Decision:
        """Take in how an attempt ended: settle it, count it, publish it, decide what follows."""
        step_id = attempt.step.step_id
        began = self.state.records[step_id].started_at
        result, usage = self.watch.settle(attempt, began)
        decision = self._absorb(attempt, result)
        self._log_end(attempt, result, usage)
        return decision

    def _absorb(self, attempt: Attempt, result: StepResult | None) -> Decision:
        step_id, number = attempt.step.step_id, attempt.number
        # The ledger counts before state.json shows the end: an owner that dies in between counts
        # the attempt again, and the ledger knows its number. The other way round nobody would.
        if result is not None:
            self._count(number, result)
        if result is None or result.is_interrupted:
            return self._note_interruption()
        progress, decision = self._decide(self.state.progress, result)
        if isinstance(decision, AskHuman) and result.question:
            decision = AskHuman(f"{decision.reason}: {result.question}")
        # Published and remembered before state.json leaves the attempt behind: both are done again
        # by an owner that finds it still running there, and doing them twice changes nothing.
        self.artifacts.publish_step(step_id, number)
        if progress.step(step_id).status is not Phase.RETRYING and not isinstance(decision, Park):
            self._remember(step_id, number, result)
        self.state = replace(self.state, progress=progress).record(
            step_id, finished_at=result.finished_at, summary=result.summary
        )
        # Of a parked job state.json is written with the time, by `park`: an owner that found it
        # without would run into the same limit at once.
        if not isinstance(decision, Park):
            self.artifacts.write_state(self.job, self.state)
        return decision

    def _count(self, number: int, result: StepResult) -> None:
        """Count the attempt in the ledger; a broken one stops no job."""
        is_retry = self.state.progress.step(self.state.progress.current).tries > 0
        end = counts.attempt_end(number, self.job.project_id, result, is_retry=is_retry)
        problem = ledger.count_attempt(self.owner.settings.roots, end)
        if problem is not None:
            words = f"not counted: {problem}"
            self.owner.journal.error(words, Message.MISCONFIGURED, **self.fields)

    def _note_interruption(self) -> Decision:
        """Let the step run again: the attempt left no end of its own, nothing is counted against
        it.
        """
        step_id = self.state.progress.current
        progress = pipeline.progress_after_interruption(self.state.progress)
        self.state = replace(self.state, progress=progress).record(
            step_id, finished_at=_timestamp(), summary=INTERRUPTED
        )
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
        redactor = Redactor(secret_values(self.owner.settings))
        self.artifacts.write_context(without_secrets({**document, "after": mark}, redactor))

    def _log_end(
        self, attempt: Attempt, result: StepResult | None, usage: Mapping[str, float]
    ) -> None:
        step_id = attempt.step.step_id
        status = self.state.progress.step(step_id).status
        missing = None if result is None else result.metrics.get("journal_missing_lines")
        fields = {**self.watch.fields_of(attempt), "status": status, **usage}
        words = f"ended: {status}: {self.state.records[step_id].summary}"
        if missing:
            words += f" ({missing} lines that its agent printed are not in the journal)"
        self.owner.journal.info(words, Message.ENDED, **fields, missing_lines=missing)

    # ---- parting ------------------------------------------------------------------------------

    def _is_held(self) -> bool:
        return self.artifacts.paths.hold.exists()

    def _part(self, decision: Decision) -> Rest | None:
        """Part with the job where the decision says so; None: its step is to be run.

        A budget that was used up may not be so by now: that is asked before an attempt. Where it
        still is, or the attempt says so again, there is no hurry any more.
        """
        match decision:
            case Finish():
                return self._end(decision)
            case AskHuman(reason):
                return self._end(Finish(Status.NEEDS_HUMAN, "awaiting_human", reason))
            case Park() if self._is_held():
                return self._give_back()
            case Park(kind, _, until) if until or kind is OutcomeClass.QUOTA or self.asked_budget:
                return self._park(decision)
            case Park():
                self.asked_budget = True
        return None

    def _part_from_admission(self, wait: Wait) -> Rest | None:
        """Part with a job whose next attempt may not begin: until then, or until a person looks."""
        if wait.until is None:
            hold = {"who": None, "reason": wait.reason, "when": _timestamp()}
            atomic.replace_json(self.artifacts.paths.hold, hold)
            return None
        if self.watch.is_cancelled():
            return self._end(CANCELLED)
        return self._part(Park(wait.kind, wait.reason, wait.until))

    def _end(self, end: Finish) -> Rest:
        now = datetime.now(UTC)
        patch = start.job_patch(self.owner.settings, self.owner.agents, self.job)
        state = finish(self.owner.slot, self.key, self.job, end, now, patch)
        words = f"{end.status}: {end.reason or 'done'}"
        self.owner.journal.info(words, Message.FINISHED, **self.fields, queue=state)
        return self._rest(state)

    def _give_back(self) -> Rest:
        if give_back(self.owner.slot, self.key, self.job, self.state) is State.HELD:
            self.owner.journal.info("held back", Message.HELD, **self.fields)
            return self._rest(State.HELD)
        words = "given back to the queue: the runner leaves"
        self.owner.journal.info(words, Message.GIVEN_BACK, **self.fields)
        return Left(stays=False)

    def _park(self, decision: Park) -> Rest:
        step = self.state.progress.step(self.state.progress.current)
        result = self.artifacts.attempt_result(self.state.progress.current, step.resumes)
        details, summary = ({}, "") if result is None else (result.details, result.summary)
        # a name has whole seconds: at an earlier one it would be parked again, and again
        until = decision.until and whole_after(decision.until)
        until = until or parking.resume_time(details, step.parks, datetime.now(UTC))
        reason = decision.reason if decision.until else f"{decision.reason}: {summary}"
        parked = Parked(rfc3339(until), decision.kind, reason)
        park(self.owner.slot, self.key, self.job, self.state, parked)
        words = f"parked until {parked.until}: {reason}"
        self.owner.journal.info(words, Message.PARKED, **self.fields, until=parked.until)
        return self._rest(State.PARKED, until)

    def _leave_running(self) -> Left:
        """Leave the step running: it goes on, and the next owner waits for it."""
        if not self.owner.launcher.outlives:
            give_back(self.owner.slot, self.key, self.job, self.state)
            words = "given back to the queue: the runner leaves"
            self.owner.journal.info(words, Message.GIVEN_BACK, **self.fields)
            return Left(stays=False)
        self.artifacts.write_state(self.job, replace(self.state, claimed_at=None))
        self.owner.journal.info("left its step running", Message.LEFT, **self.fields)
        return Left(stays=True)

    def _rest(self, state: State, until: datetime | None = None) -> Rest:
        """Return where the job rests; a cancel that still saw it with us is ours to carry out."""
        if state in ENDED:
            return Finished(state)
        if self.watch.is_cancelled() and self.owner.slot.take(state, self.key):
            return self._end(CANCELLED)
        return WaitsForPerson(state) if until is None else WaitsForLimit(until)


def whole_after(moment: datetime) -> datetime:
    """Return the first whole second that is not before a moment. Pure."""
    whole = moment.replace(microsecond=0)
    return whole if whole == moment else whole + timedelta(seconds=1)


def _timestamp() -> str:
    return rfc3339(datetime.now(UTC))
