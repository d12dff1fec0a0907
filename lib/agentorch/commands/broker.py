"""agentorch-broker: answers agents, with the keys that they don't have."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from agentorch.broker import server
from agentorch.broker.grants import Grants
from agentorch.broker.upstream import Patience
from agentorch.commands.base import program
from agentorch.config.settings import load
from agentorch.systemd.journal import Journal

_USUAL = Patience()


@program()
@click.option(
    "--grants",
    required=True,
    metavar="DIRECTORY",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where steps write what they may use.",
)
@click.option(
    "--idle-s",
    "leave_after_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Leave when no step has had a grant for so long; the next client starts it again.",
)
@click.option(
    "--fd",
    "descriptor",
    type=click.IntRange(min=0),
    metavar="N",
    help="Listen on this inherited descriptor, instead of a socket that systemd passes.",
)
@click.option("--parent", type=int, hidden=True, help="Ends when this process ends.")
@click.option("--connect-s", type=float, default=_USUAL.connect_s, hidden=True)
@click.option("--first-byte-s", type=float, default=_USUAL.first_byte_s, hidden=True)
@click.option("--whole-answer-s", type=float, default=_USUAL.whole_answer_s, hidden=True)
@click.option("--silence-s", "idle_s", type=float, default=_USUAL.idle_s, hidden=True)
@click.option("--total-s", type=float, default=_USUAL.total_s, hidden=True)
def main(
    grants: Path,
    leave_after_s: float | None,
    descriptor: int | None,
    parent: int | None,
    **patience: float,
) -> None:
    """Answer agents on a socket that it was passed, with the keys that they don't have.

    It puts in the provider's key, counts what is used, and lets through to the hosts that a step
    may reach. TERM or INT ends it.
    """
    if parent is not None:
        server.end_with(parent)
    settings = load()
    journal = Journal("agentorch-broker", settings)
    listening = server.listening_socket(descriptor)
    server.log_through(journal)
    found = server.tables(settings)
    asyncio.run(
        server.serve(listening, Grants(grants), found, journal, Patience(**patience), leave_after_s)
    )
