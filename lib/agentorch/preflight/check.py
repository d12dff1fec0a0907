"""The check before a real attempt: the agent is allowed, there, new enough, and can work.

`check` looks and returns problems as words; empty is fine. Nothing of the agent runs but its own
"what version are you".
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentorch.agents.base import Capabilities
from agentorch.core.job import Network
from agentorch.core.policy import Effective
from agentorch.core.states import OutcomeClass
from agentorch.preflight.versions import (
    Version,
    first_version,
    is_at_least,
    kept_version,
    version_text,
)


@dataclass(frozen=True)
class Problem:
    """Why an attempt is not started: how that counts, its code in the result, and the words."""

    kind: OutcomeClass
    error: str
    words: str


@dataclass(frozen=True)
class Ground:
    """The installation that an attempt would run on.
    MIN_BINARY_VERSIONS. `versions` is the file of what programs said of theirs; None: ask them.
    """

    policy: Effective
    environment: Mapping[str, str]
    minimum: Mapping[str, Version]
    source_is_git: bool
    non_git_status: str = "needs_human"
    versions: Path | None = None


def check(capabilities: Capabilities, ground: Ground) -> tuple[Problem, ...]:
    """Every problem that this agent has on this ground. Runs `version_argv` where that matters."""
    return (
        *_forbidden(capabilities, ground.policy),
        *_unusable(capabilities, ground),
        *_not_git(capabilities, ground),
    )


def _forbidden(capabilities: Capabilities, policy: Effective) -> tuple[Problem, ...]:
    binary = capabilities.binary
    problems = []
    if binary not in policy.binaries:
        allowed = ", ".join(sorted(policy.binaries)) or "none"
        words = f"the policy does not allow {binary!r} (allowed: {allowed}; see ALLOWED_BINARIES)"
        problems.append(Problem(OutcomeClass.POLICY, "policy", words))
    if capabilities.needs_network and policy.network is Network.DENY:
        words = f"{binary!r} needs the network, and the policy denies it (see NETWORK_POLICY)"
        problems.append(Problem(OutcomeClass.POLICY, "policy", words))
    return tuple(problems)


def _not_git(capabilities: Capabilities, ground: Ground) -> tuple[Problem, ...]:
    if ground.source_is_git or not capabilities.needs_git:
        return ()
    asked = ground.non_git_status == "needs_human"
    kind = OutcomeClass.NEEDS_HUMAN if asked else OutcomeClass.POLICY
    words = f"{capabilities.binary!r} works in git repositories, and the workdir is none: git init"
    return (Problem(kind, "non_git_workdir", words),)


def _unusable(capabilities: Capabilities, ground: Ground) -> tuple[Problem, ...]:
    """Return the binary is missing, or too old, or won't say."""
    path = ground.environment.get("PATH", os.defpath)
    words = _missing(capabilities, path) or _too_old(capabilities, ground)
    return (Problem(OutcomeClass.POLICY, "preflight", words),) if words else ()


def _missing(capabilities: Capabilities, path: str) -> str | None:
    if find_program(capabilities, path) is None:
        where = "there" if capabilities.program else f"on PATH ({path})"
        program = capabilities.program or capabilities.binary
        return f"{program!r} is not {where}{_install(capabilities)}"
    for name in capabilities.requires:
        if shutil.which(name, path=_absolute(path)) is None:
            return f"{name!r} is not on PATH ({path}){_install(capabilities)}"
    return None


def find_program(capabilities: Capabilities, path: str) -> str | None:
    """Return where the agent's program is, None where it is nowhere; relative entries don't
    count.
    """
    return shutil.which(capabilities.program or capabilities.binary, path=_absolute(path))


def _absolute(path: str) -> str:
    return ":".join(entry for entry in path.split(":") if entry.startswith("/"))


def _too_old(capabilities: Capabilities, ground: Ground) -> str | None:
    least = required_version(capabilities, ground.minimum)
    if least is None:
        return None
    version, words = least
    if not capabilities.version_argv:
        return f"{capabilities.binary!r} can't tell its version, and {words}"
    told = kept_version(capabilities.version_argv, ground.environment, ground.versions)
    if told is None:
        asked = shlex.join(capabilities.version_argv)
        return f"{capabilities.binary!r} did not tell its version ({asked}), and {words}"
    here = first_version(told)
    if here is None:
        return f"{capabilities.binary!r} printed no version, and {words}"
    if is_at_least(here, version):
        return None
    return f"{capabilities.binary!r} is {version_text(here)}, and {words}{_install(capabilities)}"


def required_version(
    capabilities: Capabilities, minimum: Mapping[str, Version]
) -> tuple[Version, str] | None:
    """Return the oldest version that will do, and who says so; None: any will. Pure."""
    asked = minimum.get(capabilities.binary)
    known = first_version(capabilities.minimum)
    if asked is not None and (known is None or is_at_least(asked, known)):
        return asked, f"MIN_BINARY_VERSIONS asks for {version_text(asked)}"
    return None if known is None else (known, f"the adapter needs {version_text(known)} at least")


def _install(capabilities: Capabilities) -> str:
    return f": {capabilities.install}" if capabilities.install else ""
