"""agentorch-export: writes all that a job has into one tar."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO

import click

from agentorch.archive.export import export
from agentorch.commands.base import ids, open_queue, print_line, program, with_ids
from agentorch.commands.output_file import output_file
from agentorch.core.text import printable

MOST_LINES = 20


@program()
@with_ids
@click.option("--workspace", is_flag=True, help="With its workspace and the history of that.")
@click.option(
    "-o", "--output", metavar="FILE", help="Write it there, in one rename; - is standard output."
)
def main(
    job_refs: tuple[str, ...], jobs: tuple[str, ...], output: str | None, *, workspace: bool
) -> None:
    """Write a job on which nobody works as a tar, to standard output: what lies among its
    artifacts, and where it was in the queue.

    The first entry, EXPORT.json, has the SHA-256 of every file. agentorch-import takes it in again,
    here or elsewhere.
    """
    given = ids(job_refs, jobs)
    if len(given) != 1:
        raise click.UsageError(f"an archive is of one job: {len(given)} ids were given")
    if output in (None, "-") and sys.stdout.isatty():
        raise click.UsageError("a tar is nothing for a terminal: give -o FILE, or a pipe")
    queue = open_queue()
    with _open_output(output) as file:
        exported = export(queue, given[0], file.write, workspace=workspace)
        file.flush()
    for one in exported.left_out[:MOST_LINES]:
        print_line(f"{exported.job.job_id}: left out: {printable(one.path)}: {one.why}")
    if len(exported.left_out) > MOST_LINES:
        print_line(f"and {len(exported.left_out) - MOST_LINES} more: EXPORT.json lists them")


def _open_output(output: str | None) -> AbstractContextManager[BinaryIO]:
    """Return where the archive goes. Raises Refused."""
    return nullcontext(sys.stdout.buffer) if output in (None, "-") else output_file(output)
