"""agentorch-release: lets held and parked jobs go on."""

from __future__ import annotations

import click

from agentorch.commands.decision import COMMENT, decision_command
from agentorch.core.job import Job
from agentorch.decisions.hold import keep, release
from agentorch.jobqueue.jobqueue import Queue

KEEP = click.option("--keep", "unpins", is_flag=True, help="Only let agentorch-gc have them again.")


@decision_command(lambda given: "unkeep" if given["unpins"] else "release", KEEP, COMMENT)
def main(queue: Queue, job_ref: str, *, comment: str, unpins: bool) -> Job:
    """Put held jobs back into the queue, and parked ones before their time.

    A running job that was to be held when its step has ended goes on.
    """
    if unpins:
        return keep(queue, job_ref, pinned=False, comment=comment)
    return release(queue, job_ref, comment=comment)
