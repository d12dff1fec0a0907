"""A shell in a job's workspace: the job is held meanwhile, and the sandbox is the job's.

The job is in a slot of its visitor's meanwhile, so nobody claims, edits or collects it; then it is
put back to where it lay. A visitor that was killed is settled like any dead owner.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from agentorch.agents.base import Capabilities
from agentorch.agents.registry import Registry
from agentorch.artifacts.decision_log import deciding
from agentorch.artifacts.directory import JobArtifacts
from agentorch.attempt.broker_access import forget_all
from agentorch.attempt.place import environment_of, policy_of
from agentorch.attempt.start import make_workspace
from agentorch.config.settings import Settings
from agentorch.core.errors import Invalid, Misconfigured, Refused
from agentorch.core.job import Network, Step
from agentorch.core.states import ENDED, State
from agentorch.jobqueue import slots
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import Found, find
from agentorch.jobqueue.reclaim import settle
from agentorch.jobqueue.slots import Slot
from agentorch.process import terminal
from agentorch.sandbox import Confinement, Wrapper, confine, vacate
from agentorch.storage.copy_tree import remove
from agentorch.storage.paths import WorkspacePaths
from agentorch.system.signals import leaving
from agentorch.workspace.workspace import PatchRefused, Workspace, WorkspaceTrouble

COLLECTED = "its workspace was gone: made again from its base and the steps' patches"
NEVER_MADE = "its workspace was not there yet: made from its source"
MENDED = "its work tree was gone, or from before a reboot: put back as it was recorded last"


@contextlib.contextmanager
def hold_job(queue: Queue, word: str) -> Iterator[Found]:
    """Hold the job in a slot of ours meanwhile.

    Raises Refused where it has another owner, or none can be had.
    """
    found = find(queue, word)
    if found.state is None or found.key is None or found.state is State.RUNNING:
        owner = f" in slot {found.slot!r}" if found.slot else ""
        raise Refused(f"job {found.job.job_id} is {found.state}{owner}: wait for its owner")
    paths = queue.roots.artifacts(found.job.job_id)
    with leaving((signal.SIGTERM, signal.SIGHUP)), _free_slot(queue) as slot:
        # under the lock under which an ended job is collected
        with deciding(paths):
            lay = queue.file_of(found.state, found.key)
            is_ours = queue.move(lay, slot.path(found.key))
        if not is_ours:
            raise Refused(f"job {found.job.job_id} was moved meanwhile")
        try:
            yield found
        finally:
            with deciding(paths):
                queue.move(slot.path(found.key), _target(queue, found, lay))


@contextlib.contextmanager
def _free_slot(queue: Queue) -> Iterator[Slot]:
    for name in slots.SHELLS:
        with slots.hold(queue, name, wait=False) as slot:
            if slot is not None:
                for stray in slot.held_keys():  # a visitor was killed in here
                    settle(slot, stray)
                yield slot
                return
    raise Refused(f"{len(slots.SHELLS)} shells are open already")


def _target(queue: Queue, found: Found, lay: Path) -> Path:
    """Return where the job goes: what was decided meanwhile was left to its owner, so to us."""
    assert found.key is not None and found.state is not None  # noqa: PT018
    paths = queue.roots.artifacts(found.job.job_id)
    if paths.cancel.exists() and found.state not in ENDED:
        return queue.paths.file(State.PENDING, found.key)  # the next owner ends it
    if paths.hold.exists() and found.state in (State.PENDING, State.PARKED):
        return queue.paths.file(State.HELD, found.key)
    return lay


# ---- the workspace ----------------------------------------------------------------------------


def prepare_workspace(settings: Settings, agents: Registry, found: Found) -> str:
    """Make the workspace where it is not there; return a sentence about it, or an empty one.

    Raises Refused.
    """
    artifacts = JobArtifacts(settings.roots.artifacts(found.job.job_id))
    workspace = Workspace(settings.roots.workspace(found.job.job_id))
    try:
        said = "" if workspace.exists() else COLLECTED if artifacts.read_base() else NEVER_MADE
        make_workspace(settings, artifacts, found.job)
        vacate(workspace.paths.work)
        if workspace.mend():
            said = MENDED
    except (WorkspaceTrouble, PatchRefused) as trouble:
        raise Refused(f"job {found.job.job_id}: no workspace: {trouble}") from trouble
    # of an attempt that was killed: its access to the broker, and a login in its HOME
    forget_all(agents, found.job, workspace.paths)
    return said


def run(settings: Settings, agents: Registry, found: Found, step: Step, argv: Sequence[str]) -> int:
    """Run a command in the workspace, confined as the step's agent is; its exit code.

    Without the network whatever the policy says, with no key, and with a HOME that is empty before
    and gone afterwards.
    """
    paths = settings.roots.workspace(found.job.job_id)
    on_terminal = terminal.is_ours()
    command = terminal.controlling_argv(argv) if on_terminal else tuple(argv)
    confinement = confinement_of(settings, _capabilities(agents, step), found, step, argv)
    policy = policy_of(settings, found.job.policy)
    wrapper = Wrapper(settings.sandbox_wrapper, settings.sandbox_wrapper_args)
    remove(paths.visitor_home)
    paths.visitor_home.mkdir(0o700, parents=True)
    try:
        with confine(wrapper if policy.sandbox else None, confinement, command) as start:
            return terminal.run(start, paths.work, on_terminal=on_terminal)
    finally:
        remove(paths.visitor_home)


def _capabilities(agents: Registry, step: Step) -> Capabilities | None:
    try:
        return agents.get(step.agent).capabilities
    except (Invalid, Misconfigured):  # an agent that is no more
        return None


def confinement_of(
    settings: Settings,
    capabilities: Capabilities | None,
    found: Found,
    step: Step,
    argv: Sequence[str],
) -> Confinement:
    """Return what of a job may be seen; the agents' HOMEs, too, to be read."""
    paths = settings.roots.workspace(found.job.job_id)
    artifacts = settings.roots.artifacts(found.job.job_id).directory
    shown = () if capabilities is None else capabilities.read_only
    masked = () if capabilities is None else capabilities.masked
    given = variables(found, step, paths, artifacts, settings.environment)
    return Confinement(
        name=f"agentorch-shell-{found.job.job_id}",
        work=paths.work,
        home=paths.visitor_home,
        artifacts=artifacts,
        network=Network.DENY,
        environment=environment_of(settings, paths.visitor_home, given=given),
        read_only=(*shown, paths.homes),
        masked=tuple(paths.work / path for path in masked),
        programs=(argv[0],),
    )


def variables(
    found: Found, step: Step, paths: WorkspacePaths, artifacts: Path, ours: Mapping[str, str]
) -> dict[str, str]:
    """Return what a visitor may want to know, as variables."""
    known = {
        "AGENTORCH_JOB": found.job.job_id,
        "AGENTORCH_STEP": step.step_id,
        "AGENTORCH_WORK": str(paths.work),
        "AGENTORCH_ARTIFACTS": str(artifacts),
        "AGENTORCH_HOMES": str(paths.homes),
    }
    return known | {name: ours[name] for name in ("TERM",) if ours.get(name)}
