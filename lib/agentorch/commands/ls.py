"""agentorch-ls: the jobs in the queue."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from agentorch.commands.shape import answer, opened, program
from agentorch.inspect import Row, age_s, keys, rows
from agentorch.states import State

FLAGS = {
    State.PENDING: "--pending",
    State.RUNNING: "--running",
    State.AWAITING_APPROVAL: "--awaiting",
    State.DONE: "--done",
    State.FAILED: "--failed",
}


@program()
@click.option("--pending", is_flag=True, help="Jobs that can be claimed.")
@click.option("--running", is_flag=True, help="Jobs that a slot owns.")
@click.option("--awaiting", is_flag=True, help="Jobs that wait for a human.")
@click.option("--done", is_flag=True, help="Jobs that succeeded.")
@click.option("--failed", is_flag=True, help="Jobs that failed, timed out or were cancelled.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def main(*, as_json: bool, **flags: bool) -> None:
    """Lists jobs in claim order: a table on a terminal, else one id a line."""
    queue = opened()
    wanted = [state for state, flag in FLAGS.items() if flags[flag.removeprefix("--")]]
    listed = keys(queue, wanted or list(State))
    if as_json:
        for row in rows(queue, listed):
            answer(row.document())
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

    from agentorch.text import one_line  # noqa: PLC0415

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
            Text(one_line(row.goal, 60)),
        )
    Console().print(table)


COLOURS = {
    "success": "green",
    "running": "cyan",
    "failed": "red",
    "timeout": "red",
    "needs_human": "yellow",
    "awaiting_approval": "yellow",
    "cancelled": "dim",
}


def _age(seconds: float) -> str:
    for size, letter in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{letter}"
    return f"{int(seconds)}s"
