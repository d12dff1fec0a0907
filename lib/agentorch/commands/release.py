"""agentorch-release: lets held and parked jobs go on."""

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
from agentorch.core.job import Job
from agentorch.decisions.decide import keep, release
from agentorch.jobqueue.jobqueue import Queue


@program()
@with_ids
@click.option("--keep", "unpins", is_flag=True, help="Only let agentorch-gc have them again.")
@COMMENT
def main(words: tuple[str, ...], jobs: tuple[str, ...], comment: str, *, unpins: bool) -> None:
    """Put held jobs back into the queue, and parked ones before their time.

    A running job that was to be held when its step has ended goes on.
    """
    settings = load_settings()
    queue, said = Queue(settings.roots), without_secrets(comment, settings)

    def release_one(word: str) -> Job:
        if unpins:
            return keep(queue, word, pinned=False, comment=said)
        return release(queue, word, comment=said)

    decide(queue, "unkeep" if unpins else "release", ids(words, jobs), release_one)
