"""agentorch-cancel: ends jobs that have not ended."""

from __future__ import annotations

from typing import Any

from agentorch.commands.decision import RECORDED, decision_command
from agentorch.core.job import Job
from agentorch.decisions.decide import cancel
from agentorch.jobqueue.jobqueue import Queue


@decision_command("cancel", RECORDED)
def main(queue: Queue, job_ref: str, **options: Any) -> Job:
    """Cancel pending, running, held, parked and waiting jobs.

    A running step is ended by its runner.
    """
    return cancel(queue, job_ref, **options)
