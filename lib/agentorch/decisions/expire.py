"""Ends jobs for which no human has decided in time. What is over, `expiry` says.

It is a decision like a human's: under the job's lock, on record with a comment that says how long
nobody decided, and refused where somebody was quicker or the job waits for something else by now.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from agentorch.artifacts.decision_log import shown_hash
from agentorch.artifacts.directory import JobArtifacts
from agentorch.artifacts.state import FINAL_STATES, JobState
from agentorch.core.errors import Damaged, Refused, UnknownJob
from agentorch.core.job import Expiry, Key, Waiting
from agentorch.core.states import State
from agentorch.core.times import moment_of
from agentorch.decisions import decide
from agentorch.decisions.case import REJECTABLE
from agentorch.decisions.expiry_rules import Expired, due_this_minute, expiry
from agentorch.jobqueue.jobqueue import Queue, current_job

NAME = "agentorch"


@dataclass(frozen=True)
class Over:
    """A job that has waited for too long, and the hash of what it was then (approvals.shown)."""

    job_id: str
    project_id: str | None
    expired: Expired
    shown: str


def find_expired(queue: Queue, server: Waiting, now: datetime) -> Iterator[Over]:
    """Yield the jobs that have waited for too long.

    The names in awaiting_approval/ are listed; of very many, some are looked into each minute.
    """
    keys = sorted(key for key, _ in queue.list_state(State.AWAITING_APPROVAL))
    for key in due_this_minute(keys, now):
        try:
            found = _expiry_of(queue, key, server, now)
        except (Damaged, FileNotFoundError):  # or somebody has decided, and removed it
            continue
        if found is not None:
            yield found


def end(queue: Queue, found: Over) -> str | None:
    """Rejects or cancels such a job; why that was refused, None: it was not."""
    by = {"uid": os.getuid(), "name": NAME}
    comment, seen = found.expired.comment, found.shown
    try:
        if found.expired.then is Expiry.REJECT:
            decide.reject(queue, found.job_id, comment=comment, shown=seen, by=by)
        else:
            decide.cancel(
                queue, found.job_id, comment=comment, shown=seen, by=by, states=REJECTABLE
            )
    except (Refused, UnknownJob) as problem:
        return str(problem)
    return None


def _expiry_of(queue: Queue, key: Key, server: Waiting, now: datetime) -> Over | None:
    paths = queue.roots.artifacts(key.job_id)
    job = current_job(paths)
    own = job.policy.waiting
    if expiry(own, server, key.submitted_at, now) is None:  # nor since any later time
        return None
    # before the state is read: what changes after that is refused
    seen = shown_hash(paths)
    since = _waiting_since(JobArtifacts(paths).read_state(), key)
    found = None if since is None else expiry(own, server, since, now)
    return None if found is None else Over(key.job_id, job.project_id, found, seen)


def _waiting_since(state: JobState | None, key: Key) -> datetime | None:
    """Return when a job began to wait; None: it does not. Pure."""
    if state is None:
        return key.submitted_at
    waits = FINAL_STATES.get(state.status) is State.AWAITING_APPROVAL
    return moment_of(state.finished_at) if waits and state.finished_at is not None else None
