"""agentorch-doctor: tries what jobs will need, for real."""

from __future__ import annotations

import click

from agentorch.checks import Check
from agentorch.commands.shape import answer, configured, program
from agentorch.doctor import examine
from agentorch.doctoragents import examine_agents
from agentorch.errors import Exit

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@program()
@click.option("--agents", is_flag=True, help="Look at the agents alone, and closely.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def main(*, agents: bool, as_json: bool) -> None:
    """Prints a line for each check; exits with 1 when there is a problem, not for a warning.

    With --agents, a line for each agent: its program and version, its key or login, whether it
    starts in the sandbox, and what a step may ask of it.
    """
    settings = configured()
    checks = []
    for check in examine_agents(settings) if agents else examine(settings):
        checks.append(check)
        _tell(check, as_json=as_json)
    if any(check.state == "problem" for check in checks):
        click.get_current_context().exit(Exit.NEGATIVE)


def _tell(check: Check, *, as_json: bool) -> None:
    if as_json:
        answer({"check": check.name, "state": check.state, "words": check.words})
    else:
        click.echo(f"{click.style(f'{check.state:8}', COLOURS[check.state])} {_line(check)}")


def _line(check: Check) -> str:
    return f"{check.name}: {check.words}"
