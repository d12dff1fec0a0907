"""agentorch-unlock: fails jobs whose owner is dead."""

from __future__ import annotations

from agentorch.commands.decision import decision_command
from agentorch.core.job import Job
from agentorch.decisions.decide import unlock
from agentorch.jobqueue.jobqueue import Queue


@decision_command("unlock")
def main(queue: Queue, job_ref: str) -> Job:
    """Move running jobs of dead owners to failed/; a live owner's job is refused (cancel it).

    agentorch-reclaim puts such jobs back into the queue instead.
    """
    return unlock(queue, job_ref)
