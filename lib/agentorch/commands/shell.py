"""agentorch-shell: opens a shell in a job's workspace, in its sandbox."""

from __future__ import annotations

import os

import click

from agentorch.agents.registry import load
from agentorch.artifacts.directory import JobArtifacts
from agentorch.attempt.place import policy_of
from agentorch.attempt.shell import hold_job, prepare_workspace, run
from agentorch.commands.base import caller_fields, load_settings, note, print_line, program
from agentorch.core.errors import UnknownJob
from agentorch.core.job import Step
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import Found
from agentorch.storage import atomic
from agentorch.systemd.message_ids import Message

SHELL = "/bin/sh"


@program()
@click.argument("job_id", metavar="ID")
@click.argument("command", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--step", "step_id", metavar="STEP", help="In the sandbox of this step's agent.")
def main(job_id: str, command: tuple[str, ...], step_id: str | None) -> None:
    """Run $SHELL, or COMMAND, in a job's workspace, confined as an agent of its is.

    There is no network, no key, and an empty HOME. Not while the job runs; nobody else has it
    meanwhile. Exits with what the command exits with.
    """
    settings = load_settings()
    agents, queue = load(settings), Queue(settings.roots)
    with atomic.disk_trouble(settings.state_directory), hold_job(queue, job_id) as found:
        step = _step(queue, found, step_id)
        said = prepare_workspace(settings, agents, found)
        if said:
            print_line(f"{found.job.job_id}: {said}")
        if not policy_of(settings, found.job.policy).sandbox:
            print_line(f"{found.job.job_id}: no sandbox: SANDBOX=0, and the job asks for none")
        _note(found, step)
        code = run(settings, agents, found, step, command or (_shell(),))
    click.get_current_context().exit(code)


def _step(queue: Queue, found: Found, step_id: str | None) -> Step:
    """Return the step that is asked for, else the one at which the job is."""
    state = JobArtifacts(queue.roots.artifacts(found.job.job_id)).read_state()
    current = found.job.steps[0].step_id if state is None else state.progress.current
    try:
        return found.job.step(step_id or current)
    except KeyError:
        ids = ", ".join(step.step_id for step in found.job.steps)
        raise UnknownJob(f"job {found.job.job_id} has no step {step_id!r}: it has {ids}") from None


def _shell() -> str:
    """Return the user's own, where it can be run in a sandbox: it is seen there below /usr
    alone.
    """
    named = os.environ.get("SHELL", "")
    is_there = named.startswith(("/bin/", "/usr/bin/")) and os.access(named, os.X_OK)
    return named if is_there else SHELL


def _note(found: Found, step: Step) -> None:
    who = caller_fields()
    who |= {"job": found.job.job_id, "project": found.job.project_id, "step": step.step_id}
    note(f"a shell, opened by {who['who']}", Message.ENTERED, **who)
