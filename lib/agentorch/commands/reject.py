"""agentorch-reject: fails jobs that wait for a human."""

from __future__ import annotations

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
from agentorch.decisions.decide import reject
from agentorch.jobqueue.jobqueue import Queue


@program()
@with_ids
@COMMENT
@HASH
def main(words: tuple[str, ...], jobs: tuple[str, ...], comment: str, shown: str | None) -> None:
    """Rejects jobs in awaiting_approval/: each ends as failed, with the error `rejected`.

    agentorch-retry queues such a job again.
    """
    settings = load_settings()
    queue, said = Queue(settings.roots), without_secrets(comment, settings)
    decide(
        queue,
        "reject",
        ids(words, jobs),
        lambda word: reject(queue, word, comment=said, shown=shown),
    )
