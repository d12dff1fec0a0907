"""agentorch-delete: removes jobs that have ended, with all that they left."""

from __future__ import annotations

from agentorch.commands.base import decide, ids, open_queue, program, with_ids
from agentorch.retention.collect import delete


@program()
@with_ids
def main(words: tuple[str, ...], jobs: tuple[str, ...]) -> None:
    """Remove jobs in done/ and failed/ at once: artifacts, workspace, place in the queue.

    A job that has not ended is refused, and so is one that is pinned (agentorch-hold --keep). The
    journal says who did it; of the job nothing is left that could.
    """
    queue = open_queue()
    decide(queue, "delete", ids(words, jobs), lambda word: delete(queue, word))
