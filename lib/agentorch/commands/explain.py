"""agentorch-explain: why a job waits, or why it failed, and what to do."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from agentorch.commands.base import ids, load_settings, print_json, program, with_ids
from agentorch.core.text import printable
from agentorch.explain.explain import explain_job
from agentorch.explain.gather import gather_facts
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import find


@program()
@with_ids
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each job.")
def main(job_refs: tuple[str, ...], jobs: tuple[str, ...], *, as_json: bool) -> None:
    """Say of each job why it waits, or why it failed, on what that rests, and what to do next.

    From its files alone: it makes nothing, and asks nobody.
    """
    settings = load_settings()
    queue = Queue(settings.roots)
    for job_ref in ids(job_refs, jobs):
        job = find(queue, job_ref)
        found = explain_job(gather_facts(queue, job, settings, datetime.now(UTC)))
        if as_json:
            print_json(found.document())
        else:
            for line in found.lines():
                click.echo(printable(line))
