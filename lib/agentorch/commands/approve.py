"""agentorch-approve: lets jobs that wait for a human go on."""

from __future__ import annotations

from typing import Any

import click

from agentorch.commands.decision import COMMENT, HASH, decision_command
from agentorch.core.job import Job
from agentorch.decisions.decide import approve
from agentorch.jobqueue.jobqueue import Queue

ACCEPT = click.option("--accept", is_flag=True, help="Take the step as it is, and go on behind it.")


@decision_command("approve", ACCEPT, COMMENT, HASH)
def main(queue: Queue, job_ref: str, **options: Any) -> Job:
    """Approve jobs in awaiting_approval/: each goes on at the step where it stopped.

    The step begins anew; with --accept, and where it succeeded and was only to be approved, the
    job goes on behind it. agentorch-reject and agentorch-cancel end such a job instead.
    """
    return approve(queue, job_ref, **options)
