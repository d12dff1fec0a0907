"""agentorch-announce: tells the administrator's programs that a job waits for a human."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime

import click

from agentorch.commands.base import load_settings, print_json, program
from agentorch.config.settings import Settings
from agentorch.jobqueue.jobqueue import Queue
from agentorch.notify.announce import LIMIT_S, announce, complain_of, due_programs, program_input
from agentorch.notify.hooks import Hooks, hooks_in
from agentorch.storage.locks import hold_lock
from agentorch.systemd.journal import Journal


@program()
@click.option("--dry-run", is_flag=True, help="Print what would be told to whom, as JSON lines.")
def main(*, dry_run: bool) -> None:
    """Run every program in notify.d once for each time a job begins to wait for a human.

    What a program does not take is told again for a day, more and more seldom.
    """
    settings = load_settings()
    queue, hooks = Queue(settings.roots), hooks_in(settings.notify_directory, os.geteuid())
    if dry_run:
        _print(queue, hooks)
    elif queue.paths.root.is_dir() and (hooks.programs or hooks.refused):
        _tell(queue, hooks, settings)


def _print(queue: Queue, hooks: Hooks) -> None:
    for one in due_programs(queue, hooks.programs, datetime.now(UTC)):
        print_json(
            {"programs": [path.name for path in one.programs], **program_input(queue, one.waiting)}
        )


def _tell(queue: Queue, hooks: Hooks, settings: Settings) -> None:
    journal = Journal("agentorch-announce", settings)
    with hold_lock(queue.paths.announcing_lock, wait=True):
        entries = due_programs(queue, hooks.programs, datetime.now(UTC))
        if entries:
            complain_of(hooks.refused or {}, journal)
            asyncio.run(announce(queue, settings, entries, journal, LIMIT_S))
