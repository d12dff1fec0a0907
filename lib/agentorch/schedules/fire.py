"""Runs of schedules: each submits its job, unless an earlier one of the schedule is in its way.

    STATE/schedules/ID.json     when the last run was due, its job, whether it is settled; and
                                the schedule's jobs that were not known to have ended
    STATE/schedules/.ID.lock    flock held while a run is decided on

A job's id is on the disk before the job is. A run that was killed in between is made again under
the same id, so of a due time comes one job at most; and no job is there that overlap can't see.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from agentorch.contracts.accept import ServerRules, accept
from agentorch.core.errors import Duplicate, Invalid, Refused, UnknownJob
from agentorch.core.job import Job
from agentorch.core.states import ENDED, State
from agentorch.core.times import rfc3339
from agentorch.decisions.decide import cancel
from agentorch.jobqueue.jobqueue import Queue, read_job
from agentorch.schedules.timers import Overlap, Schedule
from agentorch.storage import atomic
from agentorch.storage.json_files import read_json
from agentorch.storage.locks import hold_lock
from agentorch.storage.paths import SchedulePaths

Document = dict[str, Any]

# Of more jobs of one schedule that have not ended, the older ones are forgotten.
MOST_JOBS = 64


@dataclass(frozen=True)
class Record:
    """The record of a schedule's runs. Times are RFC 3339.

    `job_id` was submitted last, `at` that time. `due_job_id` is that of the time `due`; as long as
    it is not `settled` it may not be queued. `jobs` were not known to have ended.
    """

    job_id: str | None = None
    at: str | None = None
    due: str | None = None
    due_job_id: str | None = None
    settled: bool = True
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fired:
    """The outcome of a run. `job` None: none was submitted, and `why` says why."""

    job: Job | None = None
    state: State | None = None
    why: str = ""
    replaced: tuple[str, ...] = ()


def fire(
    queue: Queue,
    paths: SchedulePaths,
    schedule: Schedule,
    door: ServerRules,
    now: datetime,
    *,
    due: datetime | None = None,
    floor_bytes: int = 0,
) -> Fired:
    """Make a run; with `due`, the one of that time, once. Durable when it returns.

    Raises Invalid where the door refuses the payload, and TryAgain.
    """
    when = None if due is None else rfc3339(due)
    with atomic.disk_trouble(paths.directory):
        atomic.make_directory(paths.directory)
        with hold_lock(paths.lock(schedule.schedule_id), wait=True):
            known = read_record(paths, schedule.schedule_id)
            begun = known.due_job_id if when is not None and when == known.due else None
            if begun is not None and known.settled:
                return Fired(why=f"the run of {when} was made already")
            job, document = submission(schedule, door, now, when, begun)
            others = tuple(one for one in _open_jobs(queue, known) if one != job.job_id)
            if others and schedule.overlap is Overlap.SKIP:
                write_record(paths, schedule.schedule_id, replace(known, jobs=others))
                return Fired(why=f"job {others[-1]} of it has not ended (overlap: skip)")
            if others and schedule.overlap is Overlap.REPLACE:
                _cancel(queue, schedule, others)
            going = _with_job(known, job.job_id, rfc3339(now), when, others)
            write_record(paths, schedule.schedule_id, going)
            job = _submit(queue, job, document, floor_bytes)
            if when is not None:
                write_record(paths, schedule.schedule_id, replace(going, settled=True))
    place = queue.find(job)
    replaced = others if schedule.overlap is Overlap.REPLACE else ()
    return Fired(job, place[0] if place else None, replaced=replaced)


def _submit(queue: Queue, job: Job, document: Document, floor_bytes: int) -> Job:
    """Queue the job; where a killed run had come far with it, complete that one."""
    try:
        queue.submit(job, document, floor_bytes=floor_bytes)
    except Duplicate:
        queue.recover_incoming()
        queue.finish_submission(job.job_id)
        # submitted at another time, so its queue file has another name
        return read_job(queue.roots.artifacts(job.job_id).job)
    return job


def _with_job(
    known: Record, job_id: str, now: str, due: str | None, others: tuple[str, ...]
) -> Record:
    jobs = (*others, job_id)[-MOST_JOBS:]
    record = replace(known, job_id=job_id, at=now, jobs=jobs)
    return record if due is None else replace(record, due=due, due_job_id=job_id, settled=False)


def submission(
    schedule: Schedule, door: ServerRules, now: datetime, due: str | None, job_id: str | None
) -> tuple[Job, Document]:
    """Return the job of a run, checked by the door.

    Raises Invalid with every problem. Pure but for an id.

    `job_id` None: a new one.
    """
    meta = {"schedule": schedule.schedule_id} | ({} if due is None else {"due": due})
    document: Document = {**schedule.payload, "source": {"type": "cron", "meta": meta}}
    if job_id is not None:
        document["job_id"] = job_id
    try:
        job, complete = accept(document, door, now)
    except Invalid as invalid:
        raise Invalid([_payload_problem(problem) for problem in invalid.problems]) from invalid
    if job.project_id is None and job.workdir != "." and not job.workdir.startswith("/"):
        raise Invalid([f".payload.workdir: {job.workdir!r} is not an absolute path"])
    return job, complete


def _payload_problem(problem: str) -> str:
    return f".payload{problem.removeprefix('.') if problem.startswith('.:') else problem}"


def _open_jobs(queue: Queue, known: Record) -> list[str]:
    """Return the jobs of the schedule that have not ended; the last one may have been retried."""
    last = (known.job_id,) if known.job_id is not None else ()
    return [one for one in dict.fromkeys((*known.jobs, *last)) if _has_not_ended(queue, one)]


def _has_not_ended(queue: Queue, job_id: str) -> bool:
    try:
        job = read_job(queue.roots.artifacts(job_id).job)
    except FileNotFoundError:  # removed since, or its run was killed before it was there
        return False
    place = queue.find(job)
    return place is None or place[0] not in ENDED


def _cancel(queue: Queue, schedule: Schedule, jobs: tuple[str, ...]) -> None:
    comment = f"replaced by a later run of schedule {schedule.schedule_id}"
    for job_id in jobs:
        # it ended meanwhile
        with contextlib.suppress(Refused, UnknownJob):
            cancel(queue, job_id, comment=comment)


# ---- the record -------------------------------------------------------------------------------


def read_record(paths: SchedulePaths, schedule_id: str) -> Record:
    """Return what is known of a schedule's runs."""
    document = read_json(paths.record(schedule_id))
    return Record() if document is None else _record_of(document)


def _record_of(document: Mapping[str, Any]) -> Record:
    return Record(**{**document, "jobs": tuple(document["jobs"])})


def write_record(paths: SchedulePaths, schedule_id: str, record: Record) -> None:
    """Durable when it returns."""
    atomic.replace_json(paths.record(schedule_id), asdict(record))
