"""The end of a job: everything about it durable, then its state, then one rename.

Only the owner of the job's slot comes here. The order survives a crash anywhere: what was written
before state.json became final is written again the same way by the next owner; after that, only
the rename is left to do.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from agentorch import atomic
from agentorch.artifacts import (
    FINAL_STATES,
    PENDING,
    JobArtifacts,
    JobState,
    job_result,
)
from agentorch.documents import Document
from agentorch.job import Job, Key
from agentorch.jobqueue import flocked
from agentorch.paths import ArtifactPaths
from agentorch.pipeline import Finish, Phase, Progress, begin
from agentorch.slots import Slot
from agentorch.states import State, Status
from agentorch.times import rfc3339


def finish(
    slot: Slot, key: Key, job: Job, end: Finish, now: datetime, patch: bytes | None = None
) -> State:
    """Ends a job of ours and puts its queue file where it belongs. Durable when it returns.

    `patch` is the job's whole change; None keeps what an earlier end left.
    """
    artifacts = JobArtifacts(slot.queue.roots.artifacts(job.job_id))
    known = artifacts.read_state() or JobState(job.job_id, PENDING, begin(job))
    stamp = rfc3339(now)
    steps = artifacts.step_results(job)
    state = replace(
        known,
        status=end.status,
        progress=_at_rest(known.progress, steps),
        started_at=known.started_at or stamp,
        finished_at=stamp,
    )
    error = {"code": end.error, "message": end.reason, "details": {}} if end.error else None
    summary = end.reason or f"{len(steps)} of {len(job.steps)} steps ran"
    result = job_result(job, state, steps, error=error, summary=summary, now=stamp)
    with atomic.disk_trouble(artifacts.paths.directory):
        sweep(artifacts.paths)
        kept = patch if patch is not None else artifacts.read_patch()
        artifacts.write_end(job, result, kept)
        artifacts.write_state(job, state)
    target = FINAL_STATES[end.status]
    slot.give(key, target)
    return target


def _at_rest(progress: Progress, results: list[Document]) -> Progress:
    """No step of an ended job runs: one that did is what its last result says, or was not run."""
    step = progress.of(progress.current)
    if not isinstance(step.status, Phase):
        return progress
    told = {result["step_id"]: Status(result["status"]) for result in results}
    status = told.get(progress.current, Phase.PENDING)
    return progress.put(progress.current, replace(step, status=status))


def sweep(paths: ArtifactPaths) -> None:
    """Removes what killed writers left; not of a step whose process still writes."""
    atomic.remove_temporaries(paths.directory)
    for step in paths.started_steps():
        with flocked(step.lock, wait=False, owning=False) as free:
            if free is not None:
                for directory in (step.directory, *step.attempts.glob("*")):
                    atomic.remove_temporaries(directory)


def give_back(slot: Slot, key: Key, job: Job, state: JobState, *, as_: Key | None = None) -> None:
    """Puts a job of ours back to pending/, with a state that says so. Durable when it returns."""
    artifacts = JobArtifacts(slot.queue.roots.artifacts(job.job_id))
    with atomic.disk_trouble(artifacts.paths.directory):
        artifacts.write_state(job, replace(state, status=PENDING))
    slot.give(key, State.PENDING, as_=as_)
