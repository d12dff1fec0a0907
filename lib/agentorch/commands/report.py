"""agentorch-report: print an HTML page about a job, or about all jobs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from agentorch.commands.base import ids, open_queue, program, with_ids
from agentorch.commands.output_file import output_file
from agentorch.jobqueue.lookup import find
from agentorch.report.gather import job_view
from agentorch.report.overview import overview
from agentorch.report.page import index_page, job_page

MOST = 10_000


@program()
@with_ids
@click.option("--index", "is_index", is_flag=True, help="An overview of jobs, the newest first.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, MOST),
    default=200,
    show_default=True,
    help="How many jobs the overview lists.",
)
@click.option("-o", "--output", metavar="FILE", help="Write it there, in one rename.")
def main(
    job_refs: tuple[str, ...],
    jobs: tuple[str, ...],
    limit: int,
    output: str | None,
    *,
    is_index: bool,
) -> None:
    """Print one HTML page that needs no other file: no script, no request.

    Of a job: steps and attempts over time, cost and resources, the patch, reports, the ends of
    logs, decisions.
    """
    given = [*job_refs, *jobs] if is_index else ids(job_refs, jobs)
    if len(given) != (0 if is_index else 1):
        wanted = "no id" if is_index else "exactly one id"
        raise click.UsageError(f"a page is about one job, or with --index about all: give {wanted}")
    queue, now = open_queue(), datetime.now(UTC)
    if is_index:
        page = index_page(overview(queue, limit, now))
    else:
        page = job_page(job_view(queue, find(queue, given[0]), now))
    _write(page.encode("utf-8", "replace"), output)


def _write(page: bytes, output: str | None) -> None:
    """Write the page. Raises Refused where the file can't be made."""
    if output is None:
        sys.stdout.buffer.write(page)
        return
    with output_file(output) as file:
        file.write(page)
