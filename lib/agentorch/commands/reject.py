"""agentorch-reject: fails jobs that wait for a human."""

from __future__ import annotations

from typing import Any

from agentorch.commands.decision import COMMENT, HASH, decision_command
from agentorch.core.job import Job
from agentorch.decisions.decide import reject
from agentorch.jobqueue.jobqueue import Queue


@decision_command("reject", COMMENT, HASH)
def main(queue: Queue, job_ref: str, **options: Any) -> Job:
    """Reject jobs in awaiting_approval/: each ends as failed, with the error `rejected`.

    agentorch-retry queues such a job again.
    """
    return reject(queue, job_ref, **options)
