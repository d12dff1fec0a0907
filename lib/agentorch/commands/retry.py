"""agentorch-retry: puts jobs that ended or wait back into the queue."""

from __future__ import annotations

import click

from agentorch.commands.base import (
    COMMENT,
    decide,
    ids,
    load_settings,
    program,
    with_ids,
    without_secrets,
)
from agentorch.decisions.decide import retry
from agentorch.jobqueue.jobqueue import Queue


@program()
@with_ids
@click.option("--from", "step_id", metavar="STEP", help="Begin at this step instead.")
@COMMENT
def main(words: tuple[str, ...], jobs: tuple[str, ...], step_id: str | None, comment: str) -> None:
    """Queues failed, cancelled and waiting jobs again, from the step where each stopped.

    What succeeded before that step is kept. A job that is done begins at its first step.
    """
    settings = load_settings()
    queue, said = Queue(settings.roots), without_secrets(comment, settings)
    decide(
        queue,
        "retry",
        ids(words, jobs),
        lambda word: retry(queue, word, step_id, comment=said),
    )
