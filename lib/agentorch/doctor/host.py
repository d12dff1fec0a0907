"""The checks of the host: its directories, its programs, and the administrator's files."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator

from agentorch.agents import failure_rules
from agentorch.agents.registry import Registry, load
from agentorch.artifacts.signature import NotSigned, sign
from agentorch.broker import prices
from agentorch.config.settings import SERVICE_USER, SYSTEM_STATE, Settings
from agentorch.core.errors import Misconfigured, TryAgain
from agentorch.core.policy import Effective
from agentorch.doctor.check import Check, State
from agentorch.preflight.check import Ground, check
from agentorch.sandbox import Wrapper, probe
from agentorch.storage.filesystem_check import mount_of, power_cut_doubt, refusal
from agentorch.systemd.login import users_with_manager


def examine(settings: Settings) -> Iterator[Check]:
    """Yield every check. Leaves nothing behind, and creates no directory."""
    yield Check("configuration", "ok", f"state in {settings.state_directory}")
    yield from state_checks(settings)
    yield from service_user_checks(settings)
    yield git_check()
    yield sandbox_check(settings)
    yield from agent_checks(settings)
    yield from ends_checks(settings)
    yield from prices_checks(settings)
    yield from signing_checks(settings)


# ---- the state --------------------------------------------------------------------------------


def state_checks(settings: Settings) -> Iterator[Check]:
    """Check that the filesystems of the roots can keep what the queue promises."""
    roots = settings.roots
    places = (roots.queue_root, roots.artifacts_root, roots.workspaces_root)
    missing = [place for place in places if not place.is_dir()]
    if missing:
        words = f"{missing[0]} does not exist yet: the first agentorch-submit creates it"
        yield Check("state", "warning", words)
        return
    try:
        problem = refusal(roots)
    except TryAgain as trouble:
        problem = f"{trouble}: free some space, or make it writable"
    works = f"write, fsync, link and rename work in {roots.queue_root}"
    yield Check("state", "problem" if problem else "ok", problem or works)
    doubt = power_cut_doubt(roots.queue_root)
    safe = f"{mount_of(roots.queue_root)[0]} keeps acknowledged jobs over a power cut"
    yield Check("filesystem", "warning" if doubt else "ok", doubt or safe)
    yield space_check(settings)


def space_check(settings: Settings) -> Check:
    """Check that there is more free space than the limit below which no job is accepted."""
    free = os.statvfs(settings.roots.queue_root)
    free_bytes = free.f_bavail * free.f_frsize
    floor = settings.min_free_disk_bytes
    if free_bytes < floor:
        words = (
            f"{free_bytes} bytes are free, AGENTORCH_MIN_FREE_BYTES needs {floor}: free some space"
        )
        return Check("space", "problem", words)
    return Check("space", "ok", f"{free_bytes // 1_000_000} MB are free")


# ---- systemd ----------------------------------------------------------------------------------


def service_user_checks(settings: Settings) -> Iterator[Check]:
    """Check that the service user's manager is up, which starts the steps of a system's queue."""
    if settings.launcher == "fork" or settings.state_directory != SYSTEM_STATE:
        return
    try:
        uid = pwd.getpwnam(SERVICE_USER).pw_uid
    except KeyError:  # agentorch is not installed as a service here
        return
    known = users_with_manager()
    if known is None:
        words = "logind can't be asked: install python3-systemd, and see that logind runs"
        yield Check("manager", "warning", words)
    elif uid not in known:
        words = (
            f"the manager of {SERVICE_USER} (user@{uid}.service) is not up, so no step can start: "
            f"loginctl enable-linger {SERVICE_USER}"
        )
        yield Check("manager", "problem", words)
    else:
        yield Check("manager", "ok", f"the manager of {SERVICE_USER} is up")


# ---- programs ---------------------------------------------------------------------------------


def git_check() -> Check:
    """Check that git runs."""
    program = shutil.which("git")
    if program is None:
        return Check("git", "problem", "not found on PATH: apt install git")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    state: State = "ok" if done.returncode == 0 else "problem"
    return Check("git", state, done.stdout.strip() or done.stderr.strip())


def sandbox_check(settings: Settings) -> Check:
    """Check that the sandbox starts, and that it isolates what it should."""
    if not settings.sandbox:
        return Check("sandbox", "warning", "SANDBOX=0: only jobs that request a sandbox run in one")
    wrapper = Wrapper(settings.sandbox_wrapper, settings.sandbox_wrapper_args)
    problems = probe(wrapper, settings.network)
    if problems:
        return Check("sandbox", "problem", "; ".join(problems))
    return Check("sandbox", "ok", f"{settings.sandbox_wrapper}: starts, no network, read-only root")


def agent_checks(settings: Settings) -> Iterator[Check]:
    """Check that each agent could run, and report manifests that were not accepted."""
    agents = load(settings)
    for problem in agents.problems():
        yield Check("agents", "problem", problem)
    if not settings.real_cli:
        names = ", ".join(sorted(agents.names()))
        yield Check("agents", "ok", f"simulated (ENABLE_REAL_CLI=0): {names}")
        return
    for name in sorted(agents.names()):
        yield agent_check(settings, agents, name)


def agent_check(settings: Settings, agents: Registry, name: str) -> Check:
    """Check that an agent's program is allowed, installed, and new enough."""
    capabilities = agents.get(name).capabilities
    if capabilities is None:
        return Check(f"agent {name}", "warning", "can only be simulated here")
    allowed = Effective(settings.sandbox, settings.network, frozenset(settings.allowed_binaries))
    environment = {"PATH": settings.environment.get("PATH", os.defpath)}
    ground = Ground(allowed, environment, settings.min_binary_versions, source_is_git=True)
    problems = check(capabilities, ground)
    if problems:
        words = "; ".join(problem.words for problem in problems)
        return Check(f"agent {name}", "warning", words)
    return Check(f"agent {name}", "ok", f"{capabilities.binary} is installed and allowed")


def ends_checks(settings: Settings) -> Iterator[Check]:
    """Check the administrator's patterns of agents' failures, if there are any.

    While they cannot be read, no agent is started.
    """
    directory = settings.ends_directory
    try:
        own = len(failure_rules.rules(directory)) - len(failure_rules.rules())
    except Misconfigured as problem:
        yield Check("ends", "problem", "; ".join(problem.problems))
        return
    if own:
        yield Check("ends", "ok", f"{own} patterns of agents' failures in {directory}")


def prices_checks(settings: Settings) -> Iterator[Check]:
    """Check the administrator's prices of models, if there are any.

    While they cannot be read, no agent is started that calls a paid model.
    """
    try:
        own = len(prices.entries(settings.prices, optional=True))
    except Misconfigured as problem:
        yield Check("prices", "problem", "; ".join(problem.problems))
        return
    if own:
        yield Check("prices", "ok", f"{own} prices of models in {settings.prices}")


# ---- records ----------------------------------------------------------------------------------


def signing_checks(settings: Settings) -> Iterator[Check]:
    """Check that records of runs can be signed, where a signing key is set."""
    key = settings.roots.signing_key
    if key is None:
        return
    try:
        sign(key, b"agentorch-doctor")
    except NotSigned as problem:
        yield Check("signing", "problem", f"AGENTORCH_SIGNING_KEY: {problem}")
        return
    yield Check("signing", "ok", f"{key} signs the records of runs")
