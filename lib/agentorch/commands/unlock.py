"""agentorch-unlock: fails jobs whose owner is dead."""

from __future__ import annotations

from agentorch.commands.base import decide, ids, open_queue, program, with_ids
from agentorch.decisions.decide import unlock


@program()
@with_ids
def main(words: tuple[str, ...], jobs: tuple[str, ...]) -> None:
    """Move running jobs of dead owners to failed/; a live owner's job is refused (cancel it).

    agentorch-reclaim puts such jobs back into the queue instead.
    """
    queue = open_queue()
    decide(queue, "unlock", ids(words, jobs), lambda word: unlock(queue, word))
