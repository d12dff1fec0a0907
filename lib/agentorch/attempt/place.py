"""The place of an attempt, and the policy that holds there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentorch.config.settings import Settings
from agentorch.core.job import Policy
from agentorch.core.policy import (
    Effective,
    EnvironmentRules,
    ServerPolicy,
    effective,
    environment_for,
)
from agentorch.storage.paths import StepPaths
from agentorch.workspace.workspace import Workspace


@dataclass(frozen=True)
class Place:
    """The place of an attempt.

    `artifacts` is the directory that input artifacts are read from, and that the agent may read.
    `broker` is where a broker that the step starts has its socket. `make` makes the workspace where
    it is not there; `is_git`: what it is made of is a repository.
    """

    step: StepPaths
    artifacts: Path
    workspace: Workspace
    home: Path
    io: Path
    broker: Path
    make: Callable[[], None]
    is_git: bool


def policy_of(settings: Settings, asked: Policy) -> Effective:
    """Return what holds for a job here."""
    server = ServerPolicy(
        settings.sandbox,
        settings.network,
        settings.allowed_binaries,
        settings.allowed_hosts,
        settings.step_resources,
    )
    return effective(server, asked)


def environment_of(
    settings: Settings,
    home: Path,
    passes: Sequence[str] = (),
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return an agent's whole environment here."""
    rules = EnvironmentRules(
        settings.env_allowlist, settings.sensitive_env_vars, settings.sandbox_clear_env
    )
    return environment_for(rules, settings.environment, home=str(home), passes=passes, given=given)


def secret_values(settings: Settings) -> list[str]:
    """Return the values that must never appear in what a step leaves."""
    return [
        settings.environment[name]
        for name in settings.sensitive_env_vars
        if settings.environment.get(name)
    ]
