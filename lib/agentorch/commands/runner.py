"""agentorch-runner: holds a slot and works on jobs."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path

import click

from agentorch.agents.registry import BUILT_IN, Registry, load
from agentorch.commands.base import load_settings, program
from agentorch.config.settings import Settings
from agentorch.core.errors import Misconfigured
from agentorch.jobqueue.slots import RESERVED, SLOT
from agentorch.runner.runner import Runner, Until
from agentorch.sandbox import Wrapper, seccomp
from agentorch.systemd.journal import Journal


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
@click.option(
    "--idle-s",
    type=click.FloatRange(min=0),
    metavar="N",
    help="Leave after N seconds with nothing to do; default: stay.",
)
def main(slot: str, *, drain: bool, once: bool, idle_s: float | None) -> None:
    """Claim jobs and work on them, one at a time, until asked to leave.

    TERM or INT ends the step at hand and gives its job back; a step in a unit of its own goes on,
    and the next runner waits for it. HUP finishes the job first.
    """
    if not SLOT.fullmatch(slot) or slot in RESERVED:
        raise click.BadParameter(f"{slot!r} is not a slot's name", param_hint="--slot")
    settings = load_settings()
    agents = load(settings)
    if settings.launcher == "fork":
        _warm(settings, agents)
    until = Until.ONE if once else Until.EMPTY if drain else Until.TOLD
    runner = Runner(
        settings,
        agents,
        Journal("agentorch-runner", settings),
        until,
        program=step_program(),
        idle_s=idle_s,
    )
    click.get_current_context().exit(runner.run(slot))


def step_program() -> tuple[str, ...]:
    """Return the agentorch-step that belongs to this program, with its interpreter."""
    beside = Path(sys.argv[0]).resolve().with_name("agentorch-step")
    path = str(beside) if beside.exists() else shutil.which("agentorch-step")
    return (sys.executable, path or "agentorch-step")


def _warm(settings: Settings, agents: Registry) -> None:
    """Load and compile now what every forked attempt would have to, and inherits this way."""
    for name in BUILT_IN:
        agents.get(name)
    if settings.real_cli and Wrapper(settings.sandbox_wrapper).kind == "bwrap":
        with contextlib.suppress(Misconfigured):  # an attempt that needs it says so
            seccomp.program()
