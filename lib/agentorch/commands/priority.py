"""agentorch-priority: moves waiting jobs forward or back in the queue."""

from __future__ import annotations

import click

from agentorch.commands.base import decide, ids, open_queue, program, with_ids
from agentorch.decisions.decide import reprioritise


@program()
@click.argument("priority", metavar="PRIORITY", type=click.IntRange(0, 9))
@with_ids
def main(priority: int, words: tuple[str, ...], jobs: tuple[str, ...]) -> None:
    """Give pending, held, parked and awaiting jobs this PRIORITY (0-9): 0 is claimed first."""
    queue = open_queue()
    decide(queue, "priority", ids(words, jobs), lambda word: reprioritise(queue, word, priority))
