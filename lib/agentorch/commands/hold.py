"""agentorch-hold: holds jobs back until they are released."""

from __future__ import annotations

import click

from agentorch.commands.base import (
    RECORDED,
    decide,
    ids,
    load_settings,
    print_line,
    program,
    with_ids,
    without_secrets,
)
from agentorch.core.job import Job
from agentorch.core.states import State
from agentorch.decisions.decide import hold, keep
from agentorch.jobqueue.jobqueue import Queue


@program()
@with_ids
@click.option("--keep", "pins", is_flag=True, help="Only keep them from agentorch-gc.")
@RECORDED
def main(words: tuple[str, ...], jobs: tuple[str, ...], comment: str, *, pins: bool) -> None:
    """Hold pending, parked and running jobs back: none is run before agentorch-release.

    A running one is held when its step has ended. With --keep a job goes on as it does, and what
    it left is not removed before it is released with --keep; it may have ended.
    """
    settings = load_settings()
    queue, said = Queue(settings.roots), without_secrets(comment, settings)

    def hold_one(word: str) -> Job:
        if pins:
            return keep(queue, word, pinned=True, comment=said)
        job = hold(queue, word, comment=said)
        place = queue.find(job)
        if place is not None and place[0] is State.RUNNING:
            print_line(f"{job.job_id}: it runs, and is held when its step has ended")
        return job

    decide(queue, "keep" if pins else "hold", ids(words, jobs), hold_one)
