"""agentorch-doctor: check everything that jobs need, by trying it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from agentorch.commands.base import load_settings, print_json, program
from agentorch.config.settings import Settings
from agentorch.core.errors import Exit
from agentorch.doctor.agent_trial import probe_agents
from agentorch.doctor.agents import examine_agents
from agentorch.doctor.check import Check
from agentorch.doctor.host import examine

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@program()
@click.option("--agents", is_flag=True, help="Look at the agents alone, and closely.")
@click.option(
    "--probe", is_flag=True, help="Run the agents with a scripted model, and ask their providers."
)
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@click.argument("names", metavar="[AGENT]...", nargs=-1)
def main(names: tuple[str, ...], *, agents: bool, probe: bool, as_json: bool) -> None:
    """Print a line for each check; exits with 1 when there is a problem, not for a warning.

    With --agents, a line for each agent: its program and version, its key or login, whether it
    starts in the sandbox, and what a step may ask of it. With --probe, each agent that is there, or
    the named ones, edits a file in the sandbox for a model that plays a script, and its provider is
    asked for its models with its key: that costs nothing.
    """
    if names and not probe:
        raise click.UsageError("agents are named for --probe alone")
    settings = load_settings()
    checks = []
    for check in _checks(settings, names, agents=agents, probe=probe):
        checks.append(check)
        _tell(check, as_json=as_json)
    if any(check.state == "problem" for check in checks):
        click.get_current_context().exit(Exit.NEGATIVE)


def _checks(
    settings: Settings, names: tuple[str, ...], *, agents: bool, probe: bool
) -> Iterator[Check]:
    if agents or not probe:
        yield from examine_agents(settings) if agents else examine(settings)
    if probe:
        yield from probe_agents(settings, names)


def _tell(check: Check, *, as_json: bool) -> None:
    if as_json:
        print_json({"check": check.name, "state": check.state, "words": check.words})
    else:
        click.echo(f"{click.style(f'{check.state:8}', COLOURS[check.state])} {_line(check)}")


def _line(check: Check) -> str:
    return f"{check.name}: {check.words}"
