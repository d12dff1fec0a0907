"""Reading jobs for people: by id, by prefix, by state. Nothing here writes or makes a directory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentorch.artifacts.decision_log import shown_hash
from agentorch.artifacts.directory import JobArtifacts
from agentorch.artifacts.state import JobState
from agentorch.contracts.to_job import job_of
from agentorch.core.errors import Damaged, UnknownJob
from agentorch.core.job import JOB_ID, Job, Key
from agentorch.core.states import ENDED, State, Status
from agentorch.core.times import rfc3339
from agentorch.jobqueue.jobqueue import Queue, current_document
from agentorch.storage.json_files import Document, read_json
from agentorch.storage.paths import ArtifactPaths

MAX_SUGGESTIONS = 3
# The status of a job whose files can't be read; what is wrong with them stands for its goal.
DAMAGED = "damaged"


@dataclass(frozen=True)
class Found:
    """A job and where its queue file is; state None: it is being submitted, or was lost."""

    job: Job
    document: Document
    state: State | None
    key: Key | None
    slot: str | None


def find(queue: Queue, job_ref: str) -> Found:
    """Return the job of this id, or of the one id that begins so.

    Raises UnknownJob, naming near ids, and Damaged.
    """
    job_id = resolve(queue, job_ref)
    paths = queue.roots.artifacts(job_id)
    try:
        document = current_document(paths)
    except FileNotFoundError as problem:
        raise UnknownJob(f"no job {job_id!r}: its {paths.job.name} is missing") from problem
    job = job_of(document)
    place = queue.find(job)
    state, key, slot = place if place is not None else (None, None, None)
    return Found(job, document, state, key, slot)


def resolve(queue: Queue, job_ref: str) -> str:
    """Return the whole id that a reference means; list ids only where it is no whole one."""
    if JOB_ID.fullmatch(job_ref) and queue.roots.artifacts(job_ref).job.exists():
        return job_ref
    ids = _ids(queue)
    begin_so = [job_id for job_id in ids if job_ref and job_id.startswith(job_ref)]
    if len(begin_so) == 1:
        return begin_so[0]
    if begin_so:
        raise UnknownJob(f"{job_ref!r} is the beginning of {_some(begin_so)}")
    import difflib  # noqa: PLC0415  (only where there is no such job)

    near = difflib.get_close_matches(job_ref, ids, MAX_SUGGESTIONS) if len(job_ref) <= 64 else []
    hint = f" (did you mean {_some(near)}?)" if near else ""
    raise UnknownJob(f"no job {job_ref!r}{hint}")


def _ids(queue: Queue) -> list[str]:
    try:
        return sorted(
            name for name in os.listdir(queue.roots.artifacts_root) if JOB_ID.fullmatch(name)
        )
    except FileNotFoundError:
        return []


def _some(ids: list[str]) -> str:
    shown = ", ".join(ids[:MAX_SUGGESTIONS])
    more = len(ids) - MAX_SUGGESTIONS
    return f"{shown} and {more} more" if more > 0 else shown


def status(queue: Queue, found: Found) -> Document:
    """Return what `agentorch-status` and GET /jobs/{id} answer; `shown` is what a decision binds
    to.
    """
    artifacts = queue.roots.artifacts(found.job.job_id)
    seen = shown_hash(artifacts)  # before the rest: what changes after that is refused
    document = JobArtifacts(artifacts).state_document()
    state = None if document is None else JobState.from_document(document)
    settled = found.state in ENDED or found.state is State.AWAITING_APPROVAL
    result = read_json(artifacts.result) if settled else None
    return {
        "job_id": found.job.job_id,
        "job_dir": str(artifacts.directory),
        "status": status_word(found.state, state),
        "queue_state": found.state,
        "state": document,
        "result": result,
        "shown": seen,
    }


def status_word(state: State | None, known: JobState | None) -> str | None:
    """One word for where a job is: the queue says whether it has ended, state.json how."""
    if state in ENDED and known is not None:
        return known.status
    if state is State.AWAITING_APPROVAL:
        return Status.NEEDS_HUMAN if known is not None else State.AWAITING_APPROVAL
    return None if state is None else state.value


# A job in a listing: its key, its state, and its slot when it is running.
Listed = tuple[Key, State, str | None]


@dataclass(frozen=True)
class Row:
    """A line of a listing. `until` is set for a parked job; `reason` for that and for a held
    one.
    """

    key: Key
    state: State
    slot: str | None
    status: str | None
    step: str | None
    goal: str
    project: str | None
    agents: tuple[str, ...]
    tags: tuple[str, ...]
    until: str | None = None
    reason: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the row as one JSON object."""
        return {
            "job_id": self.key.job_id,
            "state": self.state,
            "status": self.status,
            "priority": self.key.priority,
            "submitted_at": rfc3339(self.key.submitted_at),
            "slot": self.slot,
            "step": self.step,
            "until": self.until,
            "reason": self.reason,
            "project_id": self.project,
            "tags": list(self.tags),
            "goal": self.goal,
        }


def keys(queue: Queue, states: Iterable[State]) -> list[Listed]:
    """Return the jobs in these states, in claim order."""
    found = [(key, state, slot) for state in states for key, slot in queue.list_state(state)]
    return sorted(found, key=lambda entry: str(entry[0]))


def rows(queue: Queue, listed: Iterable[Listed]) -> Iterator[Row]:
    """Yield what a listing shows of each; a job that vanished meanwhile is left out."""
    for key, state, slot in listed:
        try:
            document = current_document(queue.roots.artifacts(key.job_id))
            known = JobArtifacts(queue.roots.artifacts(key.job_id)).read_state()
        except FileNotFoundError:
            continue
        except Damaged as problem:
            yield Row(key, state, slot, DAMAGED, None, str(problem), None, (), ())
            continue
        until, reason = _waits(queue.roots.artifacts(key.job_id), state, known)
        yield Row(
            key=key,
            state=state,
            slot=slot,
            status=status_word(state, known),
            step=known.progress.current if known is not None else None,
            goal=document["goal"],
            project=document["project_id"],
            agents=tuple(step["agent"] for step in document["steps"]),
            tags=tuple(document["tags"]),
            until=until,
            reason=reason,
        )


def _waits(
    paths: ArtifactPaths, state: State, known: JobState | None
) -> tuple[str | None, str | None]:
    """Until when a job is parked, and why it is, or why it is held."""
    if state is State.PARKED and known is not None and known.parked is not None:
        return known.parked.until, known.parked.reason
    if state is State.HELD:
        return None, (read_json(paths.hold) or {}).get("reason")
    return None, None


def age_s(key: Key, now: datetime) -> float:
    """Return how long ago the job was submitted."""
    return max(0.0, (now - key.submitted_at).total_seconds())
