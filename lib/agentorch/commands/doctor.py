"""agentorch-doctor: tries what jobs will need, for real."""

from __future__ import annotations

import click

from agentorch.commands.shape import answer, configured, program
from agentorch.doctor import Check, examine
from agentorch.errors import Exit

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@program()
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def main(*, as_json: bool) -> None:
    """Prints a line for each check; exits with 1 when there is a problem, not for a warning."""
    checks = list(examine(configured()))
    for check in checks:
        if as_json:
            answer({"check": check.name, "state": check.state, "words": check.words})
        else:
            click.echo(f"{click.style(f'{check.state:8}', COLOURS[check.state])} {_line(check)}")
    if any(check.state == "problem" for check in checks):
        click.get_current_context().exit(Exit.NEGATIVE)


def _line(check: Check) -> str:
    return f"{check.name}: {check.words}"
