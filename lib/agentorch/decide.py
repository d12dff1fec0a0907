"""Decisions on jobs: approve, cancel, retry, unlock.

Each is taken under the job's lock: check the state, write the line, act. What moves a job takes
it into the commands' slot first, so it has an owner meanwhile, and a crash is settled like that of
any dead owner: state.json says where the job goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from agentorch import atomic
from agentorch.approvals import deciding, mark_cancelled, record, unmark_cancelled
from agentorch.artifacts import PENDING, JobArtifacts, JobState
from agentorch.errors import Refused
from agentorch.finish import finish, give_back
from agentorch.inspect import Found, find
from agentorch.job import Job, Key
from agentorch.jobqueue import Queue
from agentorch.pipeline import Finish, begin, decided
from agentorch.reclaim import outlives, reclaim, settle
from agentorch.slots import COMMANDS, Slot, hold, hold_dead
from agentorch.states import TRANSITIONS, Event, State, Status


def approve(queue: Queue, word: str, comment: str = "") -> Job:
    """Lets a waiting job go on at the step where it stopped. Raises Refused."""
    with _deciding(queue, word) as found:
        _expect(found, Event.APPROVE)
        with _taken(queue, found) as (slot, key):
            artifacts = JobArtifacts(queue.roots.artifacts(found.job.job_id))
            known = artifacts.read_state()
            record(artifacts.paths, "approve", _now(), comment=comment)
            if known is None:  # approved before its first claim
                slot.give(key, State.PENDING)
            else:
                progress = decided(found.job, known.progress)
                give_back(slot, key, found.job, replace(known, progress=progress))
    return found.job


def retry(queue: Queue, word: str, step_id: str | None = None, comment: str = "") -> Job:
    """Puts a failed job back to pending/, at the step where it failed or at `step_id`.

    What steps before that did is kept. Raises Refused.
    """
    with _deciding(queue, word) as found:
        _expect(found, Event.RETRY)
        if step_id is not None and step_id not in {step.step_id for step in found.job.steps}:
            ids = ", ".join(step.step_id for step in found.job.steps)
            raise Refused(f"job {found.job.job_id} has no step {step_id!r}: it has {ids}")
        with _taken(queue, found) as (slot, key):
            artifacts = JobArtifacts(queue.roots.artifacts(found.job.job_id))
            known = artifacts.read_state() or _fresh(found)
            record(artifacts.paths, "retry", _now(), comment=comment, step=step_id)
            unmark_cancelled(artifacts.paths)
            progress = decided(found.job, known.progress, step_id)
            fresh = replace(key, taken=0)
            give_back(slot, key, found.job, replace(known, progress=progress), as_=fresh)
    return found.job


def cancel(queue: Queue, word: str, comment: str = "") -> Job:
    """Ends a job: at once where nobody works on it, else by its owner. Raises Refused."""
    with _deciding(queue, word) as found:
        _expect(found, Event.CANCEL)
        paths = queue.roots.artifacts(found.job.job_id)
        record(paths, "cancel", _now(), comment=comment)
        mark_cancelled(paths)
        reclaim(queue, own=COMMANDS)
        _end_cancelled(queue, found)
    return found.job


def _end_cancelled(queue: Queue, found: Found) -> None:
    """Ends a marked job that no runner has; a runner that is quicker meets the marker itself.

    So does the one that adopts a step which runs without an owner: it has that ended first.
    """
    while (place := queue.find(found.job)) is not None:
        state, key, _ = place
        if state not in (State.PENDING, State.AWAITING_APPROVAL) or _step_runs(queue, found):
            return
        with hold(queue, COMMANDS, wait=True) as slot:
            if slot is not None and slot.take(state, key):
                end = Finish(Status.CANCELLED, "cancelled", "cancelled")
                finish(slot, key, found.job, end, _now())
                return


def unlock(queue: Queue, word: str) -> Job:
    """Moves a dead owner's job to failed/. Raises Refused where the owner lives."""
    with _deciding(queue, word) as found:
        if found.state is not State.RUNNING or found.slot is None or found.key is None:
            raise Refused(f"nothing to unlock: job {found.job.job_id} is {found.state}")
        with hold_dead(queue, found.slot) as slot:
            if slot is None:
                raise Refused(
                    f"job {found.job.job_id} runs in slot {found.slot!r}, whose owner is alive: "
                    "use agentorch-cancel"
                )
            if _step_runs(queue, found):
                raise Refused(f"the step of job {found.job.job_id} runs on: use agentorch-cancel")
            record(queue.roots.artifacts(found.job.job_id), "unlock", _now())
            if _ended_already(queue, found):
                settle(slot, found.key)
            else:
                end = Finish(Status.FAILED, "unlocked", "unlocked: its owner had died")
                finish(slot, found.key, found.job, end, _now())
    return found.job


def _step_runs(queue: Queue, found: Found) -> bool:
    """Whether a step of the job runs on, in a unit of its own."""
    state = JobArtifacts(queue.roots.artifacts(found.job.job_id)).read_state()
    return state is not None and outlives(queue.roots, state)


def _ended_already(queue: Queue, found: Found) -> bool:
    state = JobArtifacts(queue.roots.artifacts(found.job.job_id)).read_state()
    return state is not None and state.finished_at is not None


@contextmanager
def _deciding(queue: Queue, word: str) -> Iterator[Found]:
    first = find(queue, word)
    paths = queue.roots.artifacts(first.job.job_id)
    with atomic.disk_trouble(paths.directory), deciding(paths):
        yield find(queue, first.job.job_id)


def _expect(found: Found, event: Event) -> None:
    if found.state is None or event not in TRANSITIONS[found.state]:
        wanted = " or ".join(state for state in State if event in TRANSITIONS[state])
        raise Refused(f"can't {event} job {found.job.job_id}: it is {found.state}, not {wanted}")


@contextmanager
def _taken(queue: Queue, found: Found) -> Iterator[tuple[Slot, Key]]:
    """The job in the commands' slot. Raises Refused when it was moved meanwhile."""
    with ExitStack() as held:
        slot = held.enter_context(hold(queue, COMMANDS, wait=True))
        assert slot is not None and found.key is not None and found.state is not None  # noqa: PT018
        for stray in slot.held():  # a command died in here
            settle(slot, stray)
        if not slot.take(found.state, found.key):
            raise Refused(f"job {found.job.job_id} was moved meanwhile")
        yield slot, found.key


def _fresh(found: Found) -> JobState:
    return JobState(found.job.job_id, PENDING, begin(found.job))


def _now() -> datetime:
    return datetime.now(UTC)
