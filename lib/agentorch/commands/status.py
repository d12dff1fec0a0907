"""agentorch-status: where a job is and how it ended, as JSON."""

from __future__ import annotations

import json

import click

from agentorch.commands.base import ids, open_queue, program, with_ids
from agentorch.jobqueue.lookup import find, status


@program()
@with_ids
def main(job_refs: tuple[str, ...], jobs: tuple[str, ...]) -> None:
    """Print a JSON object for each job: where it is, its state and its result."""
    queue = open_queue()
    for job_ref in ids(job_refs, jobs):
        click.echo(json.dumps(status(queue, find(queue, job_ref)), ensure_ascii=False, indent=2))
