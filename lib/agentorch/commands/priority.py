"""agentorch-priority: moves waiting jobs forward or back in the queue."""

from __future__ import annotations

import click

from agentorch.commands.base import ids, open_queue, program, with_ids
from agentorch.commands.decision import decide
from agentorch.decisions.edit import reprioritise


@program()
@click.argument("priority", metavar="PRIORITY", type=click.IntRange(0, 9))
@with_ids
def main(priority: int, job_refs: tuple[str, ...], jobs: tuple[str, ...]) -> None:
    """Give pending, held, parked and awaiting jobs this PRIORITY (0-9): 0 is claimed first."""
    queue = open_queue()
    decide(queue, "priority", ids(job_refs, jobs), lambda ref: reprioritise(queue, ref, priority))
