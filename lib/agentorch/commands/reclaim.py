"""agentorch-reclaim, also agentorch recover: gives back what dead owners left."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from agentorch.archive import import_
from agentorch.commands.base import load_settings, log_entry, print_json, program
from agentorch.decisions.expire import Over, end, find_expired
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.reclaim import reclaim, wake
from agentorch.systemd.message_ids import Message


@program()
@click.option(
    "--stale-after-sec",
    "least_age_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="Leave alone what was claimed less than so long ago; default RUNNER_RECLAIM_AFTER_SEC.",
)
def main(least_age_s: float | None) -> None:
    """Put dead owners' jobs to the front of pending/, and finishes half-done submissions.

    Parked jobs whose time has come go back there, too; jobs for which no human has decided in the
    time that their policy gives are rejected or cancelled.

    A job of a live owner is left alone, however long it runs. Prints {reclaimed, stale_after_sec}.
    """
    settings = load_settings()
    queue = Queue(settings.roots)
    age_s = settings.runner_reclaim_after_s if least_age_s is None else least_age_s
    queue.prepare()
    queue.recover_incoming()
    import_.recover(queue)
    taken = reclaim(queue, least_age_s=age_s)
    for job_id in taken:
        log_entry("taken back from a dead owner", Message.RECLAIMED, job=job_id)
    for job_id in wake(queue, datetime.now(UTC)):
        log_entry("its time has come: it goes on", Message.WOKEN, job=job_id)
    for found in find_expired(queue, settings.waiting, datetime.now(UTC)):
        _tell_of(found, end(queue, found))
    print_json({"reclaimed": len(taken), "stale_after_sec": age_s})


def _tell_of(found: Over, refused: str | None) -> None:
    place, then = {"job": found.job_id, "project": found.project_id}, found.expired.then
    if refused is None:
        words = f"{then} by agentorch: {found.expired.comment}"
        log_entry(words, Message.EXPIRED, **place, decision=then)
    else:
        log_entry(f"its waiting is over, but {refused}", Message.EXPIRED, **place)
