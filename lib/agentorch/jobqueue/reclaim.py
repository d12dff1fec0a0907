"""Giving back what dead owners left.

A slot whose flock is free has no owner: its jobs go where state.json says. A final state means
that only the rename is missing; anything else goes to the front of pending/, counted in the same
rename, and a job that lost its owner too often fails instead of looping. A slot with a live owner
is left alone, however long its job runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from agentorch.artifacts.decision_log import decisions, rejection
from agentorch.artifacts.directory import JobArtifacts
from agentorch.artifacts.state import FINAL_STATES, PARKED, PENDING, JobState
from agentorch.core.errors import Damaged
from agentorch.core.job import MAX_TAKEN, Job, Key
from agentorch.core.pipeline import Finish, Phase, begin, progress_after_interruption
from agentorch.core.states import ENDED, State, Status
from agentorch.core.times import moment_of
from agentorch.jobqueue.finish import finish, give_back, set_aside, sweep
from agentorch.jobqueue.jobqueue import Queue, current_job, first_state
from agentorch.jobqueue.slots import Slot, hold_dead
from agentorch.storage import atomic
from agentorch.storage.locks import hold_lock
from agentorch.storage.paths import Roots


def reclaim(queue: Queue, *, own: str | None = None, least_age_s: float = 0) -> list[str]:
    """Give back the jobs of every dead slot but `own`; the ids of those that moved.

    `least_age_s` leaves alone what was claimed less than so long ago.
    """
    taken: list[str] = []
    for name in queue.slots():
        if name == own:
            continue
        with hold_dead(queue, name) as slot:
            if slot is not None:
                taken += [
                    k.job_id for k in slot.held_keys() if settle(slot, k, least_age_s=least_age_s)
                ]
    return taken


def settle(slot: Slot, key: Key, *, least_age_s: float = 0) -> bool:
    """Put one job of a dead owner where it belongs; False when it is too young to be taken.

    One that can't be read goes to failed/.
    """
    try:
        return _settle(slot, key, least_age_s)
    except Damaged:
        set_aside(slot, key)
    return True


def _settle(slot: Slot, key: Key, least_age_s: float) -> bool:
    job = current_job(slot.queue.roots.artifacts(key.job_id))
    artifacts = JobArtifacts(slot.queue.roots.artifacts(job.job_id))
    state = artifacts.read_state() or JobState(job.job_id, PENDING, begin(job))
    if least_age_s and _age_s(state) < least_age_s:
        return False
    with atomic.disk_trouble(artifacts.paths.directory):
        sweep(artifacts.paths)
    until = park_end(state, datetime.now(UTC))
    wanted = artifacts.paths.hold.exists() or artifacts.paths.cancel.exists()
    if (line := _half_rejected(artifacts, state)) is not None:
        finish(slot, key, job, rejection(line), datetime.now(UTC))
    elif _waits_for_approval(artifacts, job):
        slot.give(key, State.AWAITING_APPROVAL)
    elif state.status in FINAL_STATES and not _is_cancelled(artifacts, state):
        slot.give(key, FINAL_STATES[state.status])
    elif until is not None and not wanted:
        slot.park(key, until)
    elif (counted := with_dead_owner(slot.queue.roots, key, state)).taken >= MAX_TAKEN:
        end_as_lost(slot, key, job)
    else:
        give_back(slot, key, job, left_behind(slot.queue.roots, state), as_=counted)
    return True


def park_end(state: JobState, now: datetime) -> datetime | None:
    """Return until when the job is parked, None where it is not, or may go on by now."""
    if state.status != PARKED or state.parked is None:
        return None
    until = moment_of(state.parked.until)
    return until if until > now else None


def wake(queue: Queue, now: datetime) -> list[str]:
    """Put the parked jobs whose time has come back to pending/; the ids of those that moved."""
    woken = []
    for until, key in queue.each_parked():
        if until > now:
            break
        target = queue.paths.file(State.PENDING, key)
        if queue.move(queue.paths.parked_file(key, until), target):
            woken.append(key.job_id)
    return woken


def with_dead_owner(roots: Roots, key: Key, state: JobState | None) -> Key:
    """Return the key, with one more dead owner unless its step needs none, or its owner left on
    purpose.

    A runner that is stopped while its step runs on is no reason to give the job up, however often.
    """
    if state is not None and (left_on_purpose(state) or outlives(roots, state)):
        return key
    return replace(key, taken=key.taken + 1)


def left_on_purpose(state: JobState) -> bool:
    """Return whether its last owner left it, with its step, for the next one to adopt."""
    running = state.progress.step(state.progress.current).status is Phase.RUNNING
    return running and state.claimed_at is None


def outlives(roots: Roots, state: JobState) -> bool:
    """Return whether the job's step runs on in a unit of its own, whatever became of its owner.

    The webhook asks, too, which sees no workspaces.
    """
    step = roots.artifacts(state.job_id).step(state.progress.current)
    if not step.unit.exists():
        return False
    with hold_lock(step.lock, wait=False, owning=False) as it:
        return it is None


def _waits_for_approval(artifacts: JobArtifacts, job: Job) -> bool:
    """Return whether the job was never approved: its owner died before a decision was on record."""
    if first_state(job) is not State.AWAITING_APPROVAL or artifacts.read_state() is not None:
        return False
    if artifacts.paths.cancel.exists():  # its next owner ends it
        return False
    return "approve" not in {line["what"] for line in decisions(artifacts.paths)}


def _half_rejected(artifacts: JobArtifacts, state: JobState) -> Mapping[str, Any] | None:
    """Return the line of a rejection whose command died before the job had ended: it may be
    counted.
    """
    lines = decisions(artifacts.paths)
    ended = FINAL_STATES.get(state.status) in ENDED
    return lines[-1] if lines and lines[-1]["what"] == "reject" and not ended else None


def _is_cancelled(artifacts: JobArtifacts, state: JobState) -> bool:
    """Return whether a job that stopped to ask was cancelled meanwhile: its next owner ends it."""
    return state.status == Status.NEEDS_HUMAN and artifacts.paths.cancel.exists()


def end_as_lost(slot: Slot, key: Key, job: Job) -> None:
    """Fail a job that was taken from a dead owner once too often."""
    reason = f"its runner died {key.taken + 1} times with it"
    finish(slot, key, job, Finish(Status.FAILED, "infra", reason), datetime.now(UTC))


def left_behind(roots: Roots, state: JobState) -> JobState:
    """Return the state with a running attempt that left nothing, and is no more, marked as
    interrupted.
    """
    step_id = state.progress.current
    step = state.progress.step(step_id)
    left = roots.artifacts(state.job_id).step(step_id).attempt(step.attempt)
    ended = left.result.exists() or left.end.exists()
    if step.status is not Phase.RUNNING or ended or outlives(roots, state):
        return state
    return replace(state, progress=progress_after_interruption(state.progress))


def _age_s(state: JobState) -> float:
    """Return how long ago the job was claimed; without end where no claim is on record, nor any
    owner.
    """
    if state.claimed_at is None:
        return math.inf
    return (datetime.now(UTC) - moment_of(state.claimed_at)) / timedelta(seconds=1)
