"""The shape of a command that decides on jobs: approve, reject, retry, hold, release, cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from agentorch.commands.base import (
    Program,
    caller_fields,
    each,
    ids,
    load_settings,
    note,
    program,
    redact_text,
    with_ids,
)
from agentorch.core.errors import Refused
from agentorch.core.job import Job
from agentorch.jobqueue.jobqueue import Queue
from agentorch.systemd.message_ids import Message

Decoration = Callable[[Callable[..., Any]], Callable[..., Any]]

COMMENT = click.option("--comment", default="", help="Recorded, and told to the next steps.")
RECORDED = click.option("--comment", default="", help="Recorded with the decision.")
HASH = click.option(
    "--hash", "shown", metavar="HASH", help="Only if agentorch-status still shows this."
)


def decision_command(
    name: str | Callable[[Mapping[str, Any]], str], *options: Decoration
) -> Callable[[Callable[..., Job]], Program]:
    """Make a function a command that takes one decision on every job that is named.

    The function takes the queue, a job's id or its beginning, and the options, of which `comment`
    comes without secrets; its docstring is the help. `name` is the decision's in the journal, or
    gives it for the options.
    """

    def make(act: Callable[..., Job]) -> Program:
        def run(job_refs: tuple[str, ...], jobs: tuple[str, ...], **given: Any) -> None:
            settings = load_settings()
            queue = Queue(settings.roots)
            if "comment" in given:
                given["comment"] = redact_text(given["comment"], settings)
            what = name if isinstance(name, str) else name(given)
            decide(queue, what, ids(job_refs, jobs), lambda ref: act(queue, ref, **given))

        run.__doc__ = act.__doc__
        function: Callable[..., Any] = run
        for option in reversed(options):
            function = option(function)
        return program()(with_ids(function))

    return make


def decide(queue: Queue, what: str, job_refs: Iterable[str], act: Callable[[str], Job]) -> None:
    """Take a decision on each job; print the ids of those on which it was taken."""
    from agentorch.jobqueue.lookup import resolve  # noqa: PLC0415  (for refusals alone)

    fields: dict[str, Any] = {"decision": what, **caller_fields()}

    def decide_one(job_ref: str) -> None:
        try:
            job = act(job_ref)
        except Refused as problem:
            text = f"{what} by {fields['who']} was refused: {problem}"
            note(text, Message.REFUSED, job=resolve(queue, job_ref), **fields)
            raise
        click.echo(job.job_id)
        place: dict[str, Any] = {"job": job.job_id, "project": job.project_id}
        note(f"{what}, decided by {fields['who']}", Message.DECIDED, **place, **fields)

    each(job_refs, decide_one)
