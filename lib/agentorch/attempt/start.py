"""An attempt at its place: of a queued job below the roots, or of a job file with no queue."""

from __future__ import annotations

import signal
import sys
from functools import partial
from pathlib import Path

from agentorch.agents.registry import Registry
from agentorch.artifacts.directory import JobArtifacts, publish
from agentorch.attempt.broker_access import forget_all
from agentorch.attempt.execution import Stops
from agentorch.attempt.place import Place, secret_values
from agentorch.attempt.step_run import NO_UNIT, StepRun, Unit
from agentorch.config.settings import Settings
from agentorch.core.attempt import Attempt
from agentorch.core.conversation import start
from agentorch.core.errors import Exit, TryAgain
from agentorch.core.job import Job, Step
from agentorch.core.results import StepResult
from agentorch.core.states import Status
from agentorch.redaction.redactor import Redactor
from agentorch.sandbox import vacate
from agentorch.storage.paths import ArtifactPaths, WorkspacePaths
from agentorch.system.signals import Signals
from agentorch.workspace.workspace import Source, Workspace, WorkspaceTrouble, source_of

# What agentorch-step exits with, by the status of its result.
CODES = {
    Status.SUCCESS: Exit.DONE,
    Status.NEEDS_HUMAN: Exit.NEEDS_HUMAN,
    Status.TIMEOUT: Exit.TIMED_OUT,
    Status.CANCELLED: Exit.INTERRUPTED,
}


def run_queued(
    settings: Settings,
    agents: Registry,
    attempt: Attempt,
    alive_fd: int,
    unit: Unit = NO_UNIT,
) -> StepResult | None:
    """Run an attempt of a queued job; None where it was started before."""
    roots = settings.roots
    artifacts = JobArtifacts(roots.artifacts(attempt.job.job_id))
    paths = roots.workspace(attempt.job.job_id)
    place = Place(
        step=artifacts.paths.step(attempt.step.step_id),
        artifacts=artifacts.paths.directory,
        workspace=Workspace(paths),
        home=paths.home(attempt.step.agent),
        io=paths.io(attempt.step.step_id),
        broker=paths.broker(attempt.step.step_id),
        make=partial(make_workspace, settings, artifacts, attempt.job),
        is_git=is_git(settings, attempt.job),
    )
    with Signals((signal.SIGTERM, signal.SIGINT)) as signals:
        return StepRun(
            attempt,
            place,
            settings,
            partial(agents.get, attempt.step.agent),
            messages=start(artifacts.read_context(attempt.job)),
            latest_success=latest_success(artifacts, attempt.job, attempt.step),
            stops=Stops(signals),
            alive_fd=alive_fd,
            unit=unit,
        ).run()


def run_forked(settings: Settings, agents: Registry, attempt: Attempt, alive_fd: int) -> int:
    """Run `run_queued` as what a forked child does: return an exit code instead of raising."""
    try:
        result = run_queued(settings, agents, attempt, alive_fd)
    except TryAgain as problem:
        print(f"agentorch-step: {problem}", file=sys.stderr)  # noqa: T201  (a program of its own)
        return Exit.TRY_AGAIN
    return Exit.DONE if result is None else exit_code(result)


def run_alone(
    settings: Settings,
    agents: Registry,
    job: Job,
    step: Step,
    workdir: Path,
    output: Path,
) -> StepResult | None:
    """Run a step in `workdir` itself, with no queue.

    `output` is like a job's artifact directory: steps that share it read each other's files. The
    files of the step that ran last are in it by their plain names, too.
    """
    artifacts = JobArtifacts(ArtifactPaths(output))
    paths = artifacts.paths.step(step.step_id)
    scratch = WorkspacePaths(output / ".agentorch", workdir)
    workspace = Workspace(scratch)
    place = Place(
        step=paths,
        artifacts=output,
        workspace=workspace,
        home=scratch.home(step.agent),
        io=scratch.io(step.step_id),
        broker=scratch.broker(step.step_id),
        make=workspace.adopt,
        is_git=(workdir / ".git").exists(),
    )
    number = artifacts.next_attempt(step.step_id, 0)
    try:
        with Signals((signal.SIGTERM, signal.SIGINT)) as signals:
            result = StepRun(
                Attempt(job, step, number, number),
                place,
                settings,
                partial(agents.get, step.agent),
                messages=start(job.context_window),
                latest_success=latest_success(artifacts, job, step),
                stops=Stops(signals),
                alive_fd=None,
            ).run()
    finally:
        workspace.forget()
    artifacts.publish_step(step.step_id, number)
    publish(paths.directory, output)
    return result


def exit_code(result: StepResult) -> Exit:
    """Return what agentorch-step exits with."""
    return Exit.INTERRUPTED if result.is_interrupted else CODES.get(result.status, Exit.NEGATIVE)


def is_git(settings: Settings, job: Job) -> bool:
    """Return whether what the job's workspace is made of is a git repository."""
    try:
        return source(settings, job).kind == "git"
    except WorkspaceTrouble:  # it is gone; making the workspace says so, where it must be made
        return False


def source(settings: Settings, job: Job) -> Source:
    """Return where the job's workspace comes from. Raises WorkspaceTrouble."""
    return source_of(job, settings.project_aliases, Path.cwd())


def make_workspace(settings: Settings, artifacts: JobArtifacts, job: Job) -> None:
    """Make the job's workspace where it is not there.

    One that was lost is made again from its base and from what the steps that succeeded did.
    """
    workspace = Workspace(settings.roots.workspace(job.job_id))
    if workspace.exists():
        return
    patches = [
        artifacts.paths.step(result.step_id).latest.patch.read_bytes()
        for result in artifacts.successes(job)
    ]
    workspace.prepare(
        source(settings, job),
        excluded=excluded_paths(settings),
        patches=patches,
        commit=artifacts.read_base(),
        when=job.submitted_at,
    )
    artifacts.write_base(workspace.commit, workspace.tree)


def excluded_paths(settings: Settings) -> tuple[Path, ...]:
    """Return what is never copied into a workspace: the state itself."""
    roots = settings.roots
    return (
        settings.state_directory,
        roots.queue_root,
        roots.artifacts_root,
        roots.workspaces_root,
    )


def latest_success(artifacts: JobArtifacts, job: Job, step: Step) -> str | None:
    """Return the other step that succeeded last, None where none did."""
    ended = [result.step_id for result in artifacts.successes(job)]
    others = [step_id for step_id in ended if step_id != step.step_id]
    return others[-1] if others else None


def job_patch(settings: Settings, agents: Registry, job: Job) -> bytes:
    """Return the whole change of a job against its base; empty where there is no workspace.

    A change that holds a secret is withheld: the step that made it says so. Nothing of the job
    runs any more, so what killed attempts left of their access to the broker goes, too.
    """
    workspace = Workspace(settings.roots.workspace(job.job_id))
    if not workspace.exists():
        return b""
    vacate(workspace.paths.work)
    forget_all(agents, job, workspace.paths)
    try:
        patch = workspace.job_change().patch
    except WorkspaceTrouble:  # an agent made off with the work tree: there is no change to show
        return b""
    holds_secret = bool(Redactor(secret_values(settings)).find(patch.decode("utf-8", "replace")))
    return b"" if holds_secret else patch
