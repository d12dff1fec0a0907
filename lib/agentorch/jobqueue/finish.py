"""The end of a job: everything about it durable, then its state, then one rename.

Only the owner of the job's slot comes here. The order survives a crash anywhere: what was written
before state.json became final is written again the same way by the next owner; after that, only
the rename is left to do.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from agentorch.artifacts import manifest
from agentorch.artifacts.directory import JobArtifacts
from agentorch.artifacts.state import FINAL_STATES, PARKED, PENDING, JobState, Parked
from agentorch.core.job import Job, Key
from agentorch.core.pipeline import Finish, Phase, Progress, begin
from agentorch.core.results import JobResult, ResultError, StepResult
from agentorch.core.states import ENDED, State
from agentorch.core.times import moment_of, rfc3339
from agentorch.jobqueue import outbox
from agentorch.jobqueue.slots import Slot
from agentorch.ledger import counts, ledger
from agentorch.storage import atomic
from agentorch.storage.locks import hold_lock
from agentorch.storage.paths import ArtifactPaths, Roots


def finish(
    slot: Slot, key: Key, job: Job, end: Finish, now: datetime, patch: bytes | None = None
) -> State:
    """End a job of ours and put its queue file where it belongs. Durable when it returns.

    `patch` is the job's whole change; None keeps what an earlier end left.
    """
    artifacts = JobArtifacts(slot.queue.roots.artifacts(job.job_id))
    known = artifacts.read_state() or JobState(job.job_id, PENDING, begin(job))
    stamp = rfc3339(now)
    steps = artifacts.step_results(job)
    state = replace(
        known,
        status=end.status,
        progress=_end_running_steps(known.progress, steps),
        started_at=known.started_at or stamp,
        finished_at=stamp,
        ends=known.ends + 1,
        parked=None,
    )
    result = JobResult(
        job.job_id,
        end.status,
        state.started_at or stamp,
        stamp,
        end.reason or f"{len(steps)} of {len(job.steps)} steps ran",
        tuple(steps),
        ResultError(end.error, end.reason) if end.error else None,
    )
    # The order below survives a crash anywhere. Until state.json is final, the next owner finds a
    # running job whose last step has ended, and does all of it again: result, report, patch and
    # logs are written over, the callback has the same name, the ledger knows the end by its number.
    # Once state.json is final, the next owner only moves the queue file (`slot.give`).
    with atomic.disk_trouble(artifacts.paths.directory):
        sweep(artifacts.paths)
        kept = patch if patch is not None else artifacts.read_patch()
        artifacts.write_end(job, result, kept)
        outbox.announce(slot.queue.paths, artifacts.paths, job, state.ends, result)
        count_end(slot.queue.roots, artifacts, key, job, known, state)
        content = atomic.encode(state.to_document(job))
        manifest.keep(slot.queue.roots, result, state.ends, content)
        artifacts.write_state(job, state)
    # Last, so that a job in done/ or failed/ always has its result. A crash before it leaves a job
    # in its slot with a final state: `advance` and `settle` finish this rename, and nothing else.
    target = FINAL_STATES[end.status]
    slot.give(key, target)
    return target


def count_end(
    roots: Roots, artifacts: JobArtifacts, key: Key, job: Job, known: JobState, state: JobState
) -> None:
    """Count the end that `state` is about to tell, and the attempt that nobody took in.

    A broken ledger stops no job: agentorch-metrics says what is wrong with it.
    """
    number = known.progress.step(known.progress.current).attempt
    last = artifacts.attempt_result(known.progress.current, number)
    place, began, ended = FINAL_STATES[state.status], known.started_at, state.finished_at
    assert ended is not None  # `state` is final
    end = counts.JobEnd(
        job_id=job.job_id,
        number=state.ends,
        status=state.status,
        place=place if place in ENDED else None,
        ended_at=moment_of(ended),
        taken=key.taken,
        duration_s=None if began is None else counts.between_s(began, ended),
        waited_s=None if began is None else counts.between_s(rfc3339(job.submitted_at), began),
    )
    attempt = None if last is None else counts.attempt_end(number, job.project_id, last)
    ledger.count_job(roots, end, attempt)


def _end_running_steps(progress: Progress, results: list[StepResult]) -> Progress:
    """Return the progress with no step running: one that did is what its last result says, or was
    not run.
    """
    step = progress.step(progress.current)
    if not isinstance(step.status, Phase):
        return progress
    statuses = {result.step_id: result.status for result in results}
    status = statuses.get(progress.current, Phase.PENDING)
    return progress.with_step(progress.current, replace(step, status=status))


def sweep(paths: ArtifactPaths) -> None:
    """Remove what killed writers left; not of a step whose process still writes."""
    atomic.remove_temporaries(paths.directory)
    for step in paths.started_steps():
        with hold_lock(step.lock, wait=False, owning=False) as free:
            if free is not None:
                for directory in (step.directory, *step.attempts.glob("*")):
                    atomic.remove_temporaries(directory)


def give_back(slot: Slot, key: Key, job: Job, state: JobState, *, as_: Key | None = None) -> State:
    """Put a job of ours back to pending/, or to held/ where somebody wants that; one that is to be
    cancelled to pending/, where its next owner ends it.

    Its state says so before. Durable when it returns; tells where it lies.
    """
    artifacts = JobArtifacts(slot.queue.roots.artifacts(job.job_id))
    with atomic.disk_trouble(artifacts.paths.directory):
        # The state first: a crash before the rename leaves a pending job in a dead owner's slot,
        # which reclaim gives back. The other way round a job in pending/ could still say that it
        # runs.
        artifacts.write_state(job, replace(state, status=PENDING, parked=None))
        # it is retried; where we die before this, its next end puts it right
        if FINAL_STATES.get(state.status) in ENDED:
            ledger.mark_resumed(slot.queue.roots, job.job_id)
        # one that runs on in its unit is settled by who adopts it
        if state.progress.step(state.progress.current).status is not Phase.RUNNING:
            ledger.settle_lost(slot.queue.roots, job.job_id, datetime.now(UTC))
    held = artifacts.paths.hold.exists() and not artifacts.paths.cancel.exists()
    target = State.HELD if held else State.PENDING
    slot.give(key, target, as_=as_)
    return target


def set_aside(slot: Slot, key: Key) -> None:
    """Put a job of ours that can't be read into failed/, as it is: others are to go on."""
    ledger.settle_lost(slot.queue.roots, key.job_id, datetime.now(UTC))
    ledger.record_place(slot.queue.roots, key.job_id, State.FAILED)
    slot.give(key, State.FAILED)


def park(slot: Slot, key: Key, job: Job, state: JobState, parked: Parked) -> None:
    """Park a job of ours: it goes on by itself at that time. Durable when it returns."""
    artifacts = JobArtifacts(slot.queue.roots.artifacts(job.job_id))
    with atomic.disk_trouble(artifacts.paths.directory):
        # With the time, before the rename: an owner that finds the job in its slot after a crash
        # parks it until then, and does not run into the same limit at once.
        artifacts.write_state(job, replace(state, status=PARKED, parked=parked))
        ledger.settle_lost(slot.queue.roots, job.job_id, datetime.now(UTC))
    slot.park(key, moment_of(parked.until))
