"""agentorch-import: takes a job out of a tar that agentorch-export wrote."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import click

from agentorch.agents.registry import load
from agentorch.archive.import_ import Problems, bring
from agentorch.commands.base import caller_fields, load_settings, note, print_json, program
from agentorch.config.settings import Settings
from agentorch.contracts.semantics import host_problems, semantic_problems
from agentorch.core.errors import Invalid
from agentorch.jobqueue.jobqueue import Queue
from agentorch.systemd.message_ids import Message


@program()
@click.argument(
    "name", metavar="[FILE]", default="-", type=click.Path(readable=False, allow_dash=True)
)
@click.option("--json", "as_json", is_flag=True, help="Answer with one object.")
def main(name: str, *, as_json: bool) -> None:
    """Take in the job of FILE, or of standard input: whole, or nothing of it.

    Every hash is checked before anything is to be seen. A job that had ended is put to done/ or
    failed/; any other is held back until agentorch-release. Its id must be free here.
    """
    with ExitStack() as held:
        file = _open_archive(name, held)
        settings = load_settings()
        queue = Queue(settings.roots)
        queue.prepare()
        try:
            brought = bring(
                queue,
                file,
                _problems(settings),
                datetime.now(UTC),
                floor_bytes=settings.min_free_disk_bytes,
            )
        except Invalid as invalid:
            shown = "standard input" if name == "-" else name
            raise Invalid([f"{shown}: {one}" for one in invalid.problems]) from invalid
    job, by = brought.job, caller_fields()
    text = f"imported by {by['who']}, {brought.state}"
    place: dict[str, Any] = {"job": job.job_id, "project": job.project_id}
    note(text, Message.SUBMITTED, **place, **by, state=brought.state, source="import")
    if as_json:
        print_json({"job_id": job.job_id, "state": brought.state})
    else:
        click.echo(job.job_id)


def _open_archive(name: str, held: ExitStack) -> BinaryIO:
    """Return the archive, opened by whoever runs this: the service user may not be able to."""
    if name == "-":
        if sys.stdin.isatty():
            raise click.UsageError("give a FILE, or a tar on standard input")
        return cast("BinaryIO", sys.stdin.buffer)
    try:
        return held.enter_context(Path(name).open("rb"))
    except OSError as problem:
        raise Invalid([f"{name}: {problem.strerror}"]) from problem


def _problems(settings: Settings) -> Problems:
    agents = load(settings).abilities()
    projects = tuple(settings.project_aliases)
    return lambda document: [
        *semantic_problems(document, agents, projects),
        *host_problems(document, settings.allowed_hosts),
    ]
