"""agentorch-cancel: ends jobs that have not ended."""

from __future__ import annotations

from agentorch.commands.base import (
    RECORDED,
    decide,
    ids,
    load_settings,
    program,
    with_ids,
    without_secrets,
)
from agentorch.decisions.decide import cancel
from agentorch.jobqueue.jobqueue import Queue


@program()
@with_ids
@RECORDED
def main(words: tuple[str, ...], jobs: tuple[str, ...], comment: str) -> None:
    """Cancel pending, running, held, parked and waiting jobs.

    A running step is ended by its runner.
    """
    settings = load_settings()
    queue, said = Queue(settings.roots), without_secrets(comment, settings)
    decide(queue, "cancel", ids(words, jobs), lambda word: cancel(queue, word, comment=said))
