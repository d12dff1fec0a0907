"""agentorch-delete: removes jobs that have ended, with all that they left."""

from __future__ import annotations

from agentorch.commands.decision import decision_command
from agentorch.core.job import Job
from agentorch.jobqueue.jobqueue import Queue
from agentorch.retention.collect import delete


@decision_command("delete")
def main(queue: Queue, job_ref: str) -> Job:
    """Remove jobs in done/ and failed/ at once: artifacts, workspace, place in the queue.

    A job that has not ended is refused, and so is one that is pinned (agentorch-hold --keep). The
    journal says who did it; of the job nothing is left that could.
    """
    return delete(queue, job_ref)
