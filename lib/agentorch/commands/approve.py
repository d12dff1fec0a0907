"""agentorch-approve: lets jobs that wait for a human go on."""

from __future__ import annotations

import click

from agentorch.commands.shape import decide, ids, opened, program, with_ids
from agentorch.decide import approve


@program()
@with_ids
@click.option("--comment", default="", help="Recorded with the decision.")
def main(words: tuple[str, ...], jobs: tuple[str, ...], comment: str) -> None:
    """Approves jobs in awaiting_approval/: each goes on at the step where it stopped.

    agentorch-cancel ends such a job instead.
    """
    queue = opened()
    decide(queue, "approve", ids(words, jobs), lambda word: approve(queue, word, comment=comment))
