"""agentorch-step: runs one step, of a queued job or with no queue at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from agentorch.agents.registry import Registry, load
from agentorch.artifacts.decision_log import deciding
from agentorch.artifacts.directory import JobArtifacts
from agentorch.attempt import start
from agentorch.attempt.step_run import Unit
from agentorch.commands.base import load_settings, program
from agentorch.config.settings import Settings
from agentorch.contracts.accept import ServerRules, accept
from agentorch.contracts.parse import parse
from agentorch.core.attempt import Attempt
from agentorch.core.errors import Exit, Invalid, Refused, UnknownJob
from agentorch.core.job import Job, Step
from agentorch.core.results import StepResult
from agentorch.core.states import State
from agentorch.jobqueue.jobqueue import Queue, current_job
from agentorch.jobqueue.lookup import find
from agentorch.jobqueue.slots import STEPS, hold
from agentorch.launch import unit_recorder
from agentorch.storage import atomic
from agentorch.storage.locks import hold_lock, lock
from agentorch.storage.paths import UnitPaths
from agentorch.systemd import notify

_DIRECTORY = click.Path(file_okay=False, path_type=Path)


@program()
@click.argument("job_id", metavar="[JOB]", required=False)
@click.argument("step_id", metavar="[STEP]", required=False)
@click.option("--job", "file", type=click.Path(dir_okay=False, path_type=Path), help="A job file.")
@click.option("--step", "of_file", metavar="STEP", help="The step of that file.")
@click.option("--workdir", type=_DIRECTORY, help="Where its agent works: this very directory.")
@click.option("--output", type=_DIRECTORY, help="Where the step's files go; steps can share it.")
@click.option("--attempt", "number", type=click.IntRange(min=1), hidden=True)
@click.option("--base", type=click.IntRange(min=1), hidden=True)
@click.option("--first", type=click.IntRange(min=0), default=0, hidden=True)
@click.option("--resumes", type=click.IntRange(min=0), default=0, hidden=True)
def main(
    job_id: str | None,
    step_id: str | None,
    file: Path | None,
    of_file: str | None,
    workdir: Path | None,
    output: Path | None,
    number: int | None,
    base: int | None,
    first: int,
    resumes: int,
) -> None:
    """Run STEP of the JOB in the queue (not while a runner has it), in the job's workspace.

    Or, with no queue: --job FILE --step STEP --workdir DIR --output DIR.

    Exits with 0 success, 1 failed, 3 needs a human, 124 timed out, 130 interrupted.
    """
    settings = load_settings()
    agents = load(settings)
    if job_id and step_id and number and base:
        job = current_job(settings.roots.artifacts(job_id))
        this = Attempt(job, job.step(step_id), number, base, first, resumes)
        _run_unit(settings, agents, this)
        return
    if job_id and step_id and not (file or of_file or workdir or output):
        result = _run_queued(settings, agents, job_id, step_id)
    elif file and of_file and workdir and output and not job_id:
        result = _run_alone(settings, agents, file, of_file, workdir, output)
    else:
        raise click.UsageError("give JOB STEP, or --job, --step, --workdir and --output")
    document = None if result is None else result.to_document()
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))
    click.get_current_context().exit(Exit.BUG if result is None else start.exit_code(result))


def _run_unit(settings: Settings, agents: Registry, this: Attempt) -> None:
    """Run the attempt that the job's runner decided on: the program of a transient unit.

    Ends well when the attempt has a result, whatever it says.
    """
    roots, job_id, step_id = settings.roots, this.job.job_id, this.step.step_id
    unit = roots.workspace(job_id).unit(step_id)
    with hold_lock(roots.artifacts(job_id).step(step_id).lock, wait=True) as descriptor:
        assert descriptor is not None
        told = Unit(partial(_ready, unit), unit_recorder.figures)
        start.run_queued(settings, agents, this, descriptor, told)


def _ready(unit: UnitPaths) -> None:
    """Report that the step holds its lock and its claim; what it starts is not to speak to
    systemd.
    """
    unit.environment.unlink(missing_ok=True)
    notify.notify("READY=1")
    notify.leave()


def _run_queued(
    settings: Settings, agents: Registry, job_ref: str, step_id: str
) -> StepResult | None:
    """Run a step of a queued job: own the job in a slot meanwhile, and put it back to where it
    was.
    """
    queue = Queue(settings.roots)
    found = find(queue, job_ref)
    step = _step(found.job, step_id)
    job_id = found.job.job_id
    if found.state is None or found.key is None or found.state is State.RUNNING:
        raise Refused(f"job {job_id} is {found.state}: its runner runs its steps")
    with atomic.disk_trouble(settings.state_directory), hold(queue, STEPS, wait=False) as slot:
        if slot is None:
            raise Refused("another agentorch-step runs a step of a queued job")
        # under the lock under which an ended job is collected
        with deciding(settings.roots.artifacts(job_id)):
            lay = queue.file_of(found.state, found.key)
            is_ours = queue.move(lay, slot.path(found.key))
        if not is_ours:
            raise Refused(f"job {job_id} was moved meanwhile")
        try:
            return _run(settings, agents, found.job, step)
        finally:
            queue.move(slot.path(found.key), lay)


def _run(settings: Settings, agents: Registry, job: Job, step: Step) -> StepResult | None:
    artifacts = JobArtifacts(settings.roots.artifacts(job.job_id))
    paths = artifacts.paths.step(step.step_id)
    paths.attempts.mkdir(0o750, parents=True, exist_ok=True)
    with hold_lock(paths.lock, wait=True) as descriptor:
        assert descriptor is not None
        number = artifacts.next_attempt(step.step_id, 0)
        this = Attempt(job, step, number, number)
        result = start.run_queued(settings, agents, this, descriptor)
        artifacts.publish_step(step.step_id, number)
    return result


def _run_alone(
    settings: Settings, agents: Registry, file: Path, step_id: str, workdir: Path, output: Path
) -> StepResult | None:
    try:
        document = parse(file.read_bytes())
        door = ServerRules(
            agents.abilities(), tuple(settings.project_aliases), settings.allowed_hosts
        )
        job, _ = accept(document, door, datetime.now(UTC))
    except OSError as problem:
        raise Invalid([f"{file}: {problem.strerror}"]) from problem
    except Invalid as invalid:
        raise Invalid([f"{file}: {problem}" for problem in invalid.problems]) from invalid
    if not workdir.is_dir():
        raise Invalid([f"--workdir: {str(workdir)!r} is not a directory"])
    if output.resolve().is_relative_to(workdir.resolve()):
        raise Invalid(["--output: lies in --workdir, so it would be part of the step's change"])
    step = _step(job, step_id)
    try:
        output.mkdir(0o750, parents=True, exist_ok=True)
    except OSError as problem:
        raise Invalid([f"--output: {str(output)!r}: {problem.strerror}"]) from problem
    with _lock_output(output):
        return start.run_alone(settings, agents, job, step, workdir.resolve(), output.resolve())


@contextlib.contextmanager
def _lock_output(output: Path) -> Iterator[None]:
    """Lock the output meanwhile: its HOME and its broker are this step's. Raises Refused."""
    descriptor = os.open(output, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not lock(descriptor, wait=False):
            raise Refused(f"--output: another agentorch-step is at work in {str(output)!r}")
        yield
    finally:
        os.close(descriptor)


def _step(job: Job, step_id: str) -> Step:
    try:
        return job.step(step_id)
    except KeyError:
        ids = ", ".join(step.step_id for step in job.steps)
        raise UnknownJob(f"job {job.job_id} has no step {step_id!r}: it has {ids}") from None
