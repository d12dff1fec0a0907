"""agentorch-runner: holds a slot and works on jobs."""

from __future__ import annotations

import contextlib
from functools import partial

import click

from agentorch import attempt
from agentorch.agents.registry import BUILT_IN, Registry
from agentorch.agents.registry import load as load_agents
from agentorch.commands.shape import configured, program
from agentorch.errors import Misconfigured
from agentorch.journal import Journal
from agentorch.place import secret_values
from agentorch.record import without_secrets
from agentorch.redact import Redactor
from agentorch.runner import Runner, Until
from agentorch.sandbox import Wrapper, seccomp
from agentorch.settings import Settings
from agentorch.slots import RESERVED, SLOT


@program()
@click.option(
    "--slot",
    default="1",
    show_default=True,
    metavar="NAME",
    help="The slot to hold: one runner each.",
)
@click.option("--drain", is_flag=True, help="Leave when pending/ is empty.")
@click.option("--once", is_flag=True, help="Leave after one job.")
def main(slot: str, *, drain: bool, once: bool) -> None:
    """Claims jobs and works on them, one at a time, until it is told to leave.

    TERM or INT ends the step at hand and gives its job back; HUP finishes the job first.
    """
    if not SLOT.fullmatch(slot) or slot in RESERVED:
        raise click.BadParameter(f"{slot!r} is not a slot's name", param_hint="--slot")
    settings = configured()
    agents = load_agents(settings)
    _warm(settings, agents)
    until = Until.ONE if once else Until.EMPTY if drain else Until.TOLD
    runner = Runner(
        settings,
        agents,
        Journal("agentorch-runner", settings),
        until,
        run_step=partial(attempt.forked, settings, agents),
        job_patch=partial(attempt.job_patch, settings, agents),
        without_secrets=partial(without_secrets, redactor=Redactor(secret_values(settings))),
    )
    click.get_current_context().exit(runner.run(slot))


def _warm(settings: Settings, agents: Registry) -> None:
    """Loads and compiles now what every forked attempt would have to, and inherits this way."""
    for name in BUILT_IN:
        agents.get(name)
    if settings.real_cli and Wrapper(settings.sandbox_wrapper).kind == "bwrap":
        with contextlib.suppress(Misconfigured):  # an attempt that needs it says so
            seccomp.program()
