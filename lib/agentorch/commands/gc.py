"""agentorch-gc: removes what was kept long enough of jobs that have ended."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import click

from agentorch.commands.base import load_settings, print_json, print_line, program
from agentorch.config.settings import Settings
from agentorch.jobqueue.jobqueue import Queue
from agentorch.retention.collect import Collected, carry_out, make_plan
from agentorch.retention.rules import Plan, Removal, Rules
from agentorch.systemd.journal import Journal
from agentorch.systemd.message_ids import Message


@program()
@click.option("--dry-run", is_flag=True, help="Say what would go, and why; remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def main(*, dry_run: bool, as_json: bool) -> None:
    """Remove ended jobs after ARTIFACTS_TTL_SEC, their workspaces after WORKSPACES_TTL_SEC.

    And the oldest of them where they take more than RETENTION_MAX_BYTES, or less than
    RETENTION_MIN_FREE_BYTES are free: workspaces first. A job that has not ended stays, whatever
    its age, and so does one that is pinned (agentorch-hold --keep). Prints a line a removal: the
    id, what of it, and why.
    """
    settings = load_settings()
    queue = Queue(settings.roots)
    plan = make_plan(queue, rules_of(settings), datetime.now(UTC))
    if dry_run:
        _show(plan, as_json=as_json)
        return
    journal = Journal("agentorch-gc", settings) if "AGENTORCH_UNIT" in os.environ else None
    for done in carry_out(queue, plan.goes):
        if journal is None:
            _print(done.removal, done.freed_bytes, as_json=as_json)
        else:
            _log(journal, done)
    for limit in plan.unmet:
        if journal is None:
            print_line(limit)
        else:
            journal.warning(limit, Message.PINNED)


def _show(plan: Plan, *, as_json: bool) -> None:
    """Print what would go, what would but for its pin, and the limits that are not met then."""
    for removal in plan.goes:
        _print(removal, removal.bytes, as_json=as_json)
    for removal in plan.kept:
        _print(removal, removal.bytes, as_json=as_json, is_kept=True)
    for limit in plan.unmet:
        print_line(limit)


def rules_of(settings: Settings) -> Rules:
    """Return the server's rules."""
    return Rules(
        settings.artifacts_ttl_s,
        settings.workspaces_ttl_s,
        settings.retention_max_bytes,
        settings.retention_min_free_bytes,
    )


def _log(journal: Journal, done: Collected) -> None:
    """Log what was removed: nobody reads what a timer's service prints."""
    journal.info(
        f"{done.removal.part} removed: {done.removal.why}",
        Message.COLLECTED,
        job=done.removal.job.key.job_id,
        bytes=done.freed_bytes,
    )


def _print(removal: Removal, freed_bytes: int, *, as_json: bool, is_kept: bool = False) -> None:
    job_id, why = removal.job.key.job_id, removal.why
    if as_json:
        told = {"job_id": job_id, "part": removal.part, "why": why, "bytes": freed_bytes}
        print_json({**told, "kept": "pinned" if is_kept else None})
    elif is_kept:
        click.echo(f"{job_id}\tkept\tpinned, else its {removal.part} would go: {why}")
    else:
        click.echo(f"{job_id}\t{removal.part}\t{why}")
