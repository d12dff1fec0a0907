"""Ends jobs for which no human has decided in time. What is over, `expiry` says.

It is a decision like a human's: under the job's lock, on record with a comment that says how long
nobody decided, and refused where somebody was quicker or the job waits for something else by now.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from agentorch import decide
from agentorch.approvals import shown
from agentorch.artifacts import FINAL_STATES
from agentorch.contracts.values import waiting_of
from agentorch.documents import read_json
from agentorch.errors import Refused, UnknownJob
from agentorch.expiry import Expired, expired, looked_at
from agentorch.job import Expiry, Key, Waiting
from agentorch.jobqueue import Queue, current_document
from agentorch.states import State
from agentorch.times import moment_of

NAME = "agentorch"


@dataclass(frozen=True)
class Ended:
    """A job that waited for too long; `refused` is why it was left, None: it has ended."""

    job_id: str
    project_id: str | None
    expired: Expired
    refused: str | None = None


def expire(queue: Queue, server: Waiting, now: datetime) -> Iterator[Ended]:
    """Rejects or cancels the jobs that have waited for too long, and tells which.

    The names in awaiting_approval/ are listed; of very many, some are looked into each minute.
    """
    keys = sorted(key for key, _ in queue.list_state(State.AWAITING_APPROVAL))
    for key in looked_at(keys, now):
        try:
            ended = _judged(queue, key, server, now)
        except (FileNotFoundError, UnknownJob):  # somebody has decided, and removed it
            continue
        if ended is not None:
            yield ended


def _judged(queue: Queue, key: Key, server: Waiting, now: datetime) -> Ended | None:
    paths = queue.roots.artifacts(key.job_id)
    document = current_document(paths)
    own = waiting_of(document["policy"].get("waiting"))
    if expired(own, server, key.submitted_at, now) is None:  # nor since any later time
        return None
    # before the state is read: what changes after that is refused
    seen = shown(paths)
    since = _since(read_json(paths.state), key)
    end = None if since is None else expired(own, server, since, now)
    if end is None:
        return None
    refused = _end(queue, key.job_id, end, seen)
    return Ended(key.job_id, document["project_id"], end, refused)


def _since(state: dict[str, object] | None, key: Key) -> datetime | None:
    """When a job began to wait; None: it does not. Pure."""
    if state is None:
        return key.submitted_at
    waits = FINAL_STATES.get(str(state["status"])) is State.AWAITING_APPROVAL
    return moment_of(str(state["finished_at"])) if waits else None


def _end(queue: Queue, job_id: str, end: Expired, seen: str) -> str | None:
    """Decides; why that was refused, None: it was not."""
    by = {"uid": os.getuid(), "name": NAME}
    try:
        if end.then is Expiry.REJECT:
            decide.reject(queue, job_id, comment=end.comment, shown=seen, by=by)
        else:
            waiting = (State.AWAITING_APPROVAL,)
            decide.cancel(queue, job_id, comment=end.comment, shown=seen, by=by, states=waiting)
    except Refused as problem:
        return str(problem)
    return None
