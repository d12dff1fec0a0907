"""Decisions on jobs: approve, reject, answer, retry, cancel, unlock. See also `hold` and `edit`.

Each takes the id of a job or its beginning, and raises UnknownJob or Refused; then nothing has
changed. `by` is who decides (uid and name, or a token's hash), None: whoever runs this program.
`shown` is the hash of what the decider saw (decision_log.shown_hash); None: what there is now.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from agentorch.artifacts.decision_log import decisions, mark_cancelled, rejection, unmark
from agentorch.artifacts.state import JobState
from agentorch.core import conversation
from agentorch.core.errors import Refused
from agentorch.core.job import Job, Key
from agentorch.core.pipeline import (
    Finish,
    Progress,
    progress_after_acceptance,
    progress_after_decision,
    progress_for_continuation,
)
from agentorch.core.states import State, Status
from agentorch.decisions.case import (
    APPROVABLE,
    CANCELLABLE,
    REJECTABLE,
    RETRIABLE,
    By,
    LockedJob,
    locked_job,
    time_of_decision,
)
from agentorch.jobqueue import slots
from agentorch.jobqueue.finish import finish
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.reclaim import outlives, reclaim, settle
from agentorch.jobqueue.slots import COMMANDS, Slot, hold_dead


def approve(
    queue: Queue,
    job_ref: str,
    *,
    comment: str = "",
    accept: bool = False,
    shown: str | None = None,
    by: By | None = None,
) -> Job:
    """Let a waiting job go on: at its start, or at the step where it stopped.

    A step that is to be approved and succeeded is taken as it is, and with `accept` any: the job
    goes on behind it, and ends where that was the last one. Else the step begins anew.
    """
    with locked_job(queue, job_ref, by, shown) as it:
        it.expect("approve", APPROVABLE, comment)
        known = it.artifacts.read_state()
        if accept and not _ran(known):
            raise Refused(f"can't accept anything of job {it.job.job_id}: no step of it has run")
        with it.take() as (slot, key):
            it.record("approve", comment, **({"accept": True} if accept else {}))
            it.comment("approve", comment)
            if known is None:  # approved before its first claim
                _give_to_state(it, slot, key)
            else:
                it.goes_on(
                    slot, key, known, progress_after_approval(it.job, known.progress, accept=accept)
                )
    return it.job


def progress_after_approval(job: Job, progress: Progress, *, accept: bool) -> Progress:
    """Return how a job goes on that was approved. Pure."""
    if accept or progress.step(progress.current).status is Status.SUCCESS:
        return progress_after_acceptance(progress)
    return progress_after_decision(job, progress)


def _ran(known: JobState | None) -> bool:
    return known is not None and known.progress.step(known.progress.current).attempt > 0


def _give_to_state(it: LockedJob, slot: Slot, key: Key) -> None:
    slot.give(key, State.HELD if it.paths.hold.exists() else State.PENDING)


def reject(
    queue: Queue, job_ref: str, *, comment: str = "", shown: str | None = None, by: By | None = None
) -> Job:
    """End a waiting job as failed, with the error `rejected`."""
    with locked_job(queue, job_ref, by, shown) as it:
        it.expect("reject", REJECTABLE, comment)
        with it.take() as (slot, key):
            it.record("reject", comment)
            it.comment("reject", comment)
            finish(slot, key, it.job, rejection(decisions(it.paths)[-1]), time_of_decision())
    return it.job


def answer(
    queue: Queue, job_ref: str, text: str, *, shown: str | None = None, by: By | None = None
) -> Job:
    """Answer the question that a job's agent asked: its step goes on, work and session kept."""
    with locked_job(queue, job_ref, by, shown) as it:
        it.expect("answer", APPROVABLE, text)
        if not text.strip():
            raise Refused(f"the answer to job {it.job.job_id} is empty")
        known, question = _open_question(it)
        with it.take() as (slot, key):
            it.record("answer", text, question=question)
            messages = it.artifacts.read_context(it.job)
            it.tell(conversation.add_answer(messages, it.job.context_strategy, question, text))
            it.goes_on(slot, key, known, progress_after_answer(known.progress))
    return it.job


def progress_after_answer(progress: Progress) -> Progress:
    """Return how a job goes on whose question was answered: the limits begin anew. Pure."""
    going_on = progress_for_continuation(progress)
    step = going_on.step(going_on.current)
    return going_on.with_step(going_on.current, replace(step, tries=0, parks=0))


def _open_question(it: LockedJob) -> tuple[JobState, str]:
    known = it.artifacts.read_state()
    question = None
    if known is not None:
        step_id = known.progress.current
        result = it.artifacts.attempt_result(step_id, known.progress.step(step_id).attempt)
        question = None if result is None else result.question
    if known is None or not question:
        raise Refused(f"job {it.job.job_id} asked no question: use agentorch-approve or -reject")
    return known, question


def retry(
    queue: Queue,
    job_ref: str,
    step_id: str | None = None,
    *,
    comment: str = "",
    by: By | None = None,
) -> Job:
    """Put a job that ended or wait back to pending/: at `step_id`, else at the step where it
    stopped; one that succeeded, at its first. What steps before that did is kept.
    """
    with locked_job(queue, job_ref, by) as it:
        it.expect("retry", RETRIABLE, comment)
        if step_id is not None and step_id not in {step.step_id for step in it.job.steps}:
            ids = ", ".join(step.step_id for step in it.job.steps)
            raise Refused(f"job {it.job.job_id} has no step {step_id!r}: it has {ids}")
        known = it.artifacts.read_state()
        if known is None and it.found.state is State.AWAITING_APPROVAL:
            raise Refused(f"can't retry job {it.job.job_id}: it has not begun; approve it")
        with it.take() as (slot, key):
            it.record("retry", comment, step=step_id)
            it.comment("retry", comment)
            unmark(it.paths.cancel)
            unmark(it.paths.hold)
            again = step_id or (it.job.steps[0].step_id if it.found.state is State.DONE else None)
            known = known or it.fresh()
            it.goes_on(
                slot, key, known, progress_after_decision(it.job, known.progress, again), anew=True
            )
    return it.job


def cancel(
    queue: Queue,
    job_ref: str,
    *,
    comment: str = "",
    shown: str | None = None,
    by: By | None = None,
    states: Collection[State] = CANCELLABLE,
) -> Job:
    """End a job: at once where nobody works on it, else by its owner; only in these `states`."""
    with locked_job(queue, job_ref, by, shown) as it:
        it.expect("cancel", states, comment)
        it.record("cancel", comment)
        mark_cancelled(it.paths)
        reclaim(queue, own=COMMANDS)
        _end_cancelled(it)
    return it.job


def _end_cancelled(it: LockedJob) -> None:
    """End a marked job that no runner has; a runner that is quicker meets the marker itself.

    So does the one that adopts a step which runs without an owner: it has that ended first.
    """
    while (place := it.queue.find(it.job)) is not None:
        state, key, _ = place
        if state not in CANCELLABLE or state is State.RUNNING or _step_runs(it):
            return
        with slots.hold(it.queue, COMMANDS, wait=True) as slot:
            if slot is not None and slot.take(state, key):
                end = Finish(Status.CANCELLED, "cancelled", "cancelled")
                finish(slot, key, it.job, end, time_of_decision())
                return


def unlock(queue: Queue, job_ref: str) -> Job:
    """Move a dead owner's job to failed/. Refused where the owner lives."""
    with locked_job(queue, job_ref) as it:
        found = it.found
        if found.state is not State.RUNNING or found.slot is None or found.key is None:
            raise Refused(f"nothing to unlock: job {it.job.job_id} is {found.state}")
        with hold_dead(queue, found.slot) as slot:
            if slot is None:
                raise Refused(
                    f"job {it.job.job_id} runs in slot {found.slot!r}, whose owner is alive: "
                    "use agentorch-cancel"
                )
            if _step_runs(it):
                raise Refused(f"the step of job {it.job.job_id} runs on: use agentorch-cancel")
            it.record("unlock")
            if _ended_already(it):
                settle(slot, found.key)
            else:
                end = Finish(Status.FAILED, "unlocked", "unlocked: its owner had died")
                finish(slot, found.key, it.job, end, time_of_decision())
    return it.job


def _step_runs(it: LockedJob) -> bool:
    """Return whether a step of the job runs on, in a unit of its own."""
    state = it.artifacts.read_state()
    return state is not None and outlives(it.queue.roots, state)


def _ended_already(it: LockedJob) -> bool:
    state = it.artifacts.read_state()
    return state is not None and state.finished_at is not None
