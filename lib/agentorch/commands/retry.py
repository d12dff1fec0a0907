"""agentorch-retry: puts jobs that ended or wait back into the queue."""

from __future__ import annotations

from typing import Any

import click

from agentorch.commands.decision import COMMENT, decision_command
from agentorch.core.job import Job
from agentorch.decisions.decide import retry
from agentorch.jobqueue.jobqueue import Queue

FROM = click.option("--from", "step_id", metavar="STEP", help="Begin at this step instead.")


@decision_command("retry", FROM, COMMENT)
def main(queue: Queue, job_ref: str, **options: Any) -> Job:
    """Queue failed, cancelled and waiting jobs again, from the step where each stopped.

    What succeeded before that step is kept. A job that is done begins at its first step.
    """
    return retry(queue, job_ref, **options)
