"""agentorch-notify: tells who wants to know about ended jobs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import click

from agentorch.commands.base import each, ids, load_settings, print_json, program
from agentorch.config.settings import Settings
from agentorch.core.times import rfc3339
from agentorch.jobqueue import outbox
from agentorch.storage.locks import hold_lock
from agentorch.storage.paths import NEW, REFUSED, WAITING, QueuePaths
from agentorch.systemd.journal import Journal


@program()
@click.argument("job_refs", metavar="[ID]...", nargs=-1)
@click.option("--list", "listing", is_flag=True, help="Print what was not told yet, as JSON lines.")
@click.option("--again", is_flag=True, help="Send what was given up for the jobs ID once more.")
def main(job_refs: tuple[str, ...], *, listing: bool, again: bool) -> None:
    """Send the callbacks that are due: a POST of the job's result to its callback_url.

    What nobody takes is sent again for a day, more and more seldom, and then given up.
    """
    if job_refs and not again:
        raise click.UsageError("ids go with --again")
    settings = load_settings()
    paths = settings.roots.queue
    if listing:
        _print(paths)
        return
    if again:
        now = datetime.now(UTC)
        each(ids(job_refs, ()), lambda job_ref: click.echo(outbox.send_again(paths, job_ref, now)))
    _tell(paths, settings)


def _tell(paths: QueuePaths, settings: Settings) -> None:
    if not paths.outbox(NEW).is_dir():  # no job was ever submitted
        return
    with hold_lock(paths.outbox_lock, wait=True):
        outbox.sweep(paths)
    if next(outbox.due(paths, datetime.now(UTC)), None) is None:
        return
    # imported here: it speaks HTTP, and mostly there is nobody to tell
    from agentorch.notify.deliver import Rules, tell  # noqa: PLC0415

    rules = Rules(settings.callback_secrets, settings.callback_allowed_hosts)
    with hold_lock(paths.outbox_lock, wait=True):
        asyncio.run(tell(paths, rules, Journal("agentorch-notify", settings)))


def _print(paths: QueuePaths) -> None:
    for where in (NEW, WAITING, REFUSED):
        for placed in outbox.list_entries(paths, where):
            entry = placed.entry
            until = rfc3339(outbox.due_at(placed.path)) if where == WAITING else None
            print_json(
                {
                    "job_id": entry.job_id,
                    "status": entry.body["status"],
                    "url": entry.url,
                    "where": where,
                    "until": until,
                    "tries": entry.tries,
                    "reason": entry.reason,
                }
            )
