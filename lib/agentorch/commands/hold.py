"""agentorch-hold: holds jobs back until they are released."""

from __future__ import annotations

import click

from agentorch.commands.base import print_line
from agentorch.commands.decision import RECORDED, decision_command
from agentorch.core.job import Job
from agentorch.core.states import State
from agentorch.decisions.hold import hold, keep
from agentorch.jobqueue.jobqueue import Queue

KEEP = click.option("--keep", "pins", is_flag=True, help="Only keep them from agentorch-gc.")


@decision_command(lambda given: "keep" if given["pins"] else "hold", KEEP, RECORDED)
def main(queue: Queue, job_ref: str, *, comment: str, pins: bool) -> Job:
    """Hold pending, parked and running jobs back: none is run before agentorch-release.

    A running one is held when its step has ended. With --keep a job goes on as it does, and what
    it left is not removed before it is released with --keep; it may have ended.
    """
    if pins:
        return keep(queue, job_ref, pinned=True, comment=comment)
    job = hold(queue, job_ref, comment=comment)
    place = queue.find(job)
    if place is not None and place[0] is State.RUNNING:
        print_line(f"{job.job_id}: it runs, and is held when its step has ended")
    return job
