"""agentorch-wait: waits for jobs to end; the exit code tells how they did."""

from __future__ import annotations

import click

from agentorch.commands.base import ids, open_queue, program, with_ids
from agentorch.commands.wait_loop import wait_for


@program()
@with_ids
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="Then exit 124.",
)
def main(job_refs: tuple[str, ...], jobs: tuple[str, ...], timeout_s: float | None) -> None:
    """Wait until each job has ended or needs a human.

    Exits with 0 when all succeeded, else as the first that did not: 1 failed or cancelled, 3 needs
    a human, 124 timed out. A job that is held back or parked is waited for: a line on stderr says
    that it is, and why.
    """
    queue = open_queue()
    click.get_current_context().exit(wait_for(queue, ids(job_refs, jobs), timeout_s))
