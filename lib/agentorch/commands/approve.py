"""agentorch-approve: lets jobs that wait for a human go on."""

from __future__ import annotations

import click

from agentorch.commands.base import (
    COMMENT,
    HASH,
    decide,
    ids,
    load_settings,
    program,
    with_ids,
    without_secrets,
)
from agentorch.decisions.decide import approve
from agentorch.jobqueue.jobqueue import Queue


@program()
@with_ids
@click.option("--accept", is_flag=True, help="Take the step as it is, and go on behind it.")
@COMMENT
@HASH
def main(
    words: tuple[str, ...], jobs: tuple[str, ...], comment: str, shown: str | None, *, accept: bool
) -> None:
    """Approves jobs in awaiting_approval/: each goes on at the step where it stopped.

    The step begins anew; with --accept, and where it succeeded and was only to be approved, the
    job goes on behind it. agentorch-reject and agentorch-cancel end such a job instead.
    """
    settings = load_settings()
    queue, said = Queue(settings.roots), without_secrets(comment, settings)
    decide(
        queue,
        "approve",
        ids(words, jobs),
        lambda word: approve(queue, word, comment=said, accept=accept, shown=shown),
    )
