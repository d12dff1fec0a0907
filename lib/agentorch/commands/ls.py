"""agentorch-ls: the jobs in the queue."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from agentorch.artifacts.state import FINAL_STATES
from agentorch.commands.base import open_queue, print_json, program
from agentorch.commands.duration import Span
from agentorch.core.states import OutcomeClass, State
from agentorch.jobqueue.age_table import document, lines, shape
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import Listed, Row, age_s, keys, rows
from agentorch.jobqueue.selection import By, Filters, rows_by_content, rows_by_state, select

FLAGS = {
    State.PENDING: "--pending",
    State.RUNNING: "--running",
    State.AWAITING_APPROVAL: "--awaiting",
    State.HELD: "--held",
    State.PARKED: "--parked",
    State.DONE: "--done",
    State.FAILED: "--failed",
}
# The words of inspect.status_word.
STATUSES = sorted({*map(str, State), *map(str, FINAL_STATES)} - {State.DONE.value})
COLOURS = {
    "success": "green",
    "running": "cyan",
    "failed": "red",
    "timeout": "red",
    "needs_human": "yellow",
    "awaiting_approval": "yellow",
    "held": "yellow",
    "parked": "magenta",
    "cancelled": "dim",
}


@program()
@click.option("--pending", is_flag=True, help="Jobs that can be claimed.")
@click.option("--running", is_flag=True, help="Jobs that a slot owns.")
@click.option("--awaiting", is_flag=True, help="Jobs that wait for a human.")
@click.option("--held", is_flag=True, help="Jobs that are held back.")
@click.option("--parked", is_flag=True, help="Jobs that go on by themselves at a time.")
@click.option("--done", is_flag=True, help="Jobs that succeeded.")
@click.option("--failed", is_flag=True, help="Jobs that failed, timed out or were cancelled.")
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in State]),
    metavar="STATE",
    multiple=True,
    help="Jobs in this state.",
)
@click.option(
    "--status",
    "statuses",
    metavar="WORD",
    type=click.Choice(STATUSES),
    multiple=True,
    help="Jobs of this status.",
)
@click.option("--project", "projects", metavar="ID", multiple=True, help="Of this project; - none.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="With this tag.")
@click.option("--agent", "agents", metavar="NAME", multiple=True, help="With a step of this agent.")
@click.option(
    "--outcome",
    "outcomes",
    type=click.Choice([kind.value for kind in OutcomeClass]),
    metavar="CLASS",
    multiple=True,
    help="Whose latest attempt ended so.",
)
@click.option(
    "--older", "older_s", type=Span(), metavar="AGE", help="Submitted longer ago: 90s, 15m, 2h, 3d."
)
@click.option("--newer", "newer_s", type=Span(), metavar="AGE", help="Submitted since then.")
@click.option("--age", "by_age", is_flag=True, help="Count them by age instead.")
@click.option(
    "--by",
    type=click.Choice([by.value for by in By]),
    metavar="WHAT",
    help="The rows of --age: state (the default), project or agent.",
)
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def main(
    states: tuple[str, ...],
    by: str | None,
    *,
    by_age: bool,
    as_json: bool,
    statuses: tuple[str, ...],
    projects: tuple[str, ...],
    tags: tuple[str, ...],
    agents: tuple[str, ...],
    outcomes: tuple[str, ...],
    older_s: float | None,
    newer_s: float | None,
    **flags: bool,
) -> None:
    """List jobs in claim order: a table on a terminal, else one id a line.

    Options of different kinds must all be true of a job; of one kind, one of them.
    """
    if by is not None and not by_age:
        raise click.UsageError("--by belongs to --age")
    queue, now = open_queue(), datetime.now(UTC)
    flagged = [state for state, flag in FLAGS.items() if flags[flag.removeprefix("--")]]
    wanted = [state for state in State if state in (*flagged, *states)] or list(State)
    filters = Filters(projects, tags, agents, outcomes, statuses, older_s, newer_s)
    if by_age:
        _print_shape(queue, wanted, filters, By(by or By.STATE), now, as_json=as_json)
    else:
        _list(queue, list(select(queue, keys(queue, wanted), filters, now)), as_json=as_json)


def _print_shape(
    queue: Queue, states: Sequence[State], filters: Filters, by: By, now: datetime, *, as_json: bool
) -> None:
    if by is By.STATE and filters == Filters():
        named = rows_by_state(queue, states)
    else:
        named = rows_by_content(queue, select(queue, keys(queue, states), filters, now), by)
    found = shape(named, now)
    for line in [] if as_json else lines(found):
        click.echo(line)
    for row, columns in found.items() if as_json else ():
        print_json(document(by, row, columns))


def _list(queue: Queue, listed: Sequence[Listed], *, as_json: bool) -> None:
    if as_json:
        for row in rows(queue, listed):
            print_json(row.document())
    elif sys.stdout.isatty():
        _print_table(list(rows(queue, listed)))
    else:
        for key, _, _ in listed:
            click.echo(key.job_id)


def _print_table(listed: list[Row]) -> None:
    # imported here: only a terminal needs it, and it costs more than the listing
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from agentorch.core.text import one_line  # noqa: PLC0415

    now = datetime.now(UTC)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ID", "STATE", "STEP", "PRIO", "AGE", "GOAL"):
        table.add_column(name, no_wrap=name != "GOAL", overflow="ellipsis")
    for row in listed:
        word = row.status or row.state
        table.add_row(
            row.key.job_id,
            Text(word, COLOURS.get(word, "")),
            row.step or "",
            str(row.key.priority),
            _age(age_s(row.key, now)),
            Text(one_line(f"{waits(row)}{row.goal}", 120)),
        )
    Console().print(table)


def waits(row: Row) -> str:
    """Why a job does not go on, and until when, before its goal. Pure."""
    why = ": ".join(filter(None, [f"until {row.until}" if row.until else "", row.reason]))
    return f"[{why}] " if why else ""


def _age(seconds: float) -> str:
    for size, letter in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{letter}"
    return f"{int(seconds)}s"
