"""agentorch-diff: the patch of a job or of one of its steps."""

from __future__ import annotations

import sys

import click

from agentorch.commands.base import ids, open_queue, program, with_ids
from agentorch.core.errors import UnknownJob
from agentorch.core.text import printable
from agentorch.jobqueue.lookup import find

COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@program()
@with_ids
@click.option("--step", "step_id", metavar="STEP", help="The patch of this step alone.")
def main(job_refs: tuple[str, ...], jobs: tuple[str, ...], step_id: str | None) -> None:
    """Print a patch that `git apply` takes: as it is in a pipe, coloured on a terminal."""
    queue = open_queue()
    for job_ref in ids(job_refs, jobs):
        found = find(queue, job_ref)
        paths = queue.roots.artifacts(found.job.job_id)
        path = paths.patch
        if step_id is not None:
            path = paths.step(step_id).latest.patch
        if not path.exists():
            where = f"step {step_id!r} of job" if step_id else "job"
            raise UnknownJob(f"{where} {found.job.job_id} has no patch yet")
        _show(path.read_bytes())


def _show(patch: bytes) -> None:
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(patch)
        return
    for line in patch.decode("utf-8", "replace").splitlines():
        bold = line.startswith(("diff ", "+++ ", "--- "))
        colour = None if bold else COLOURS.get(line[:1])
        click.secho(printable(line), fg=colour, bold=bold)
