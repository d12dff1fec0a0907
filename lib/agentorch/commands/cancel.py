"""agentorch-cancel: ends jobs that have not ended."""

from __future__ import annotations

import click

from agentorch.commands.shape import decide, ids, opened, program, with_ids
from agentorch.decide import cancel


@program()
@with_ids
@click.option("--comment", default="", help="Recorded with the decision.")
def main(words: tuple[str, ...], jobs: tuple[str, ...], comment: str) -> None:
    """Cancels pending, running and waiting jobs; a running step is ended by its runner."""
    queue = opened()
    decide(queue, "cancel", ids(words, jobs), lambda word: cancel(queue, word, comment=comment))
