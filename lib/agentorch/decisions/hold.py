"""Holding jobs back and letting them go on, and keeping them from retention.

A hold reaches a job's owner by a marker; whoever has the job puts it into held/ before it starts
anything. So the marker comes first, and a crash before the rename heals itself. See decide for
what is raised, and for `by`.
"""

from __future__ import annotations

from agentorch.artifacts.decision_log import mark, unmark
from agentorch.core.errors import Refused
from agentorch.core.job import Job
from agentorch.core.states import ENDED, State
from agentorch.decisions.case import (
    HOLDABLE,
    RELEASABLE,
    By,
    LockedJob,
    locked_job,
    time_of_decision,
)
from agentorch.jobqueue.jobqueue import Queue


def hold(queue: Queue, job_ref: str, *, comment: str = "", by: By | None = None) -> Job:
    """Hold a job back: at once where nobody works on it, else its owner does when its step ends.

    Nothing but a release, a cancel or a retry brings it out of held/.
    """
    with locked_job(queue, job_ref, by) as it:
        it.expect("hold", HOLDABLE, comment)
        if it.paths.cancel.exists():
            raise Refused(
                f"can't hold job {it.job.job_id}: it is being cancelled{it.last_decision(': ')}"
            )
        it.record("hold", comment)
        mark(it.paths.hold, it.by, it.clean(comment), time_of_decision())
        _lay_aside(it)
    return it.job


def _lay_aside(it: LockedJob) -> None:
    """Move a marked job to held/ that no owner has. Raises Refused where it stopped meanwhile."""
    while (place := it.queue.find(it.job)) is not None:
        state, key, _ = place
        if state in (State.RUNNING, State.HELD):
            return
        if state not in HOLDABLE:
            unmark(it.paths.hold)
            raise Refused(f"can't hold job {it.job.job_id}: it is {state} by now")
        source, target = it.queue.file_of(state, key), it.queue.paths.file(State.HELD, key)
        if it.queue.move(source, target):
            return


def release(queue: Queue, job_ref: str, *, comment: str = "", by: By | None = None) -> Job:
    """Let a job go on now that is held, that will be when its step ends, or that is parked."""
    with locked_job(queue, job_ref, by) as it:
        is_marked = it.found.state not in ENDED and it.paths.hold.exists()
        it.expect("release", frozenset(State) if is_marked else RELEASABLE, comment)
        it.record("release", comment)
        it.comment("release", comment)
        if it.found.state in (State.HELD, State.PARKED):
            _let_go(it)
        else:
            unmark(it.paths.hold)
            _let_go_later(it)
    return it.job


def _let_go(it: LockedJob) -> None:
    with it.take() as (slot, key):
        unmark(it.paths.hold)
        known = it.artifacts.read_state()
        if known is None:
            slot.give(key, State.PENDING)
        else:
            it.goes_on(slot, key, known, known.progress)


def _let_go_later(it: LockedJob) -> None:
    """Its owner may have met the marker before it was gone."""
    if (place := it.queue.find(it.job)) is not None and place[0] is State.HELD:
        _let_go(it.with_place(place))


def keep(
    queue: Queue, job_ref: str, *, pinned: bool, comment: str = "", by: By | None = None
) -> Job:
    """Keep a job from retention, or no longer; whatever its state."""
    with locked_job(queue, job_ref, by) as it:
        it.expect("pin" if pinned else "unpin", frozenset(State), comment)
        it.record("keep" if pinned else "unkeep", comment)
        if pinned:
            mark(it.paths.keep, it.by, it.clean(comment), time_of_decision())
        else:
            unmark(it.paths.keep)
    return it.job
