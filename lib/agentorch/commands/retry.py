"""agentorch-retry: puts failed jobs back into the queue."""

from __future__ import annotations

import click

from agentorch.commands.shape import decide, ids, opened, program, with_ids
from agentorch.decide import retry


@program()
@with_ids
@click.option("--from", "step_id", metavar="STEP", help="Begin at this step instead.")
@click.option("--comment", default="", help="Recorded with the decision.")
def main(words: tuple[str, ...], jobs: tuple[str, ...], step_id: str | None, comment: str) -> None:
    """Queues failed and cancelled jobs again, from the step where each failed.

    What succeeded before that step is kept.
    """
    queue = opened()
    decide(
        queue, "retry", ids(words, jobs), lambda word: retry(queue, word, step_id, comment=comment)
    )
