"""Before a real attempt: is the agent allowed here, is it there, is it new enough, can it work?

`check` looks and returns problems as words; empty is fine. Nothing of the agent runs but its own
"what version are you".
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import IO

from agentorch.agents.base import Capabilities
from agentorch.job import Network
from agentorch.policy import Effective
from agentorch.states import OutcomeClass

VERSION_TIMEOUT_S = 10
VERSION_BYTES = 64 * 1024
DOTTED = re.compile(r"\d{1,9}(?:\.\d{1,9}){1,5}", re.ASCII)
WHOLE = re.compile(r"\d{1,9}", re.ASCII)

Version = tuple[int, ...]


@dataclass(frozen=True)
class Problem:
    """Why an attempt is not started: how that counts, its code in the result, and the words."""

    kind: OutcomeClass
    error: str
    words: str


@dataclass(frozen=True)
class Ground:
    """What an attempt would run on. `non_git_status` is NON_GIT_WORKDIR_STATUS."""

    policy: Effective
    environment: Mapping[str, str]
    minimum: Mapping[str, Version]
    source_is_git: bool
    non_git_status: str = "needs_human"


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
    """The binary is missing, or too old, or won't say."""
    path = ground.environment.get("PATH", os.defpath)
    words = _missing(capabilities, path) or _outdated(capabilities, ground)
    return (Problem(OutcomeClass.POLICY, "preflight", words),) if words else ()


def _missing(capabilities: Capabilities, path: str) -> str | None:
    absolute = ":".join(entry for entry in path.split(":") if entry.startswith("/"))
    if shutil.which(capabilities.program or capabilities.binary, path=absolute) is not None:
        return None
    where = "there" if capabilities.program else f"on PATH ({path})"
    wanted = capabilities.program or capabilities.binary
    return f"{wanted!r} is not {where}{_install(capabilities)}"


def _outdated(capabilities: Capabilities, ground: Ground) -> str | None:
    least = ground.minimum.get(capabilities.binary)
    if least is None:
        return None
    wanted = f"MIN_BINARY_VERSIONS asks for {_spelled(least)}"
    if not capabilities.version_argv:
        return f"{capabilities.binary!r} can't tell its version, and {wanted}"
    said = printed(capabilities.version_argv, ground.environment)
    if said is None:
        return f"{capabilities.binary!r} did not tell its version, and {wanted}"
    found = first_version(said)
    if found is None:
        return f"{capabilities.binary!r} printed no version, and {wanted}"
    if is_at_least(found, least):
        return None
    return f"{capabilities.binary!r} is {_spelled(found)}, and {wanted}{_install(capabilities)}"


def _install(capabilities: Capabilities) -> str:
    return f": {capabilities.install}" if capabilities.install else ""


# ---- versions ---------------------------------------------------------------------------------


def first_version(text: str) -> Version | None:
    """The first version-looking number: one with dots, else any. None where there is none. Pure."""
    match = DOTTED.search(text) or WHOLE.search(text)
    return tuple(int(number) for number in match[0].split(".")) if match else None


def is_at_least(found: Version, least: Version) -> bool:
    """Compared as numbers; what a version doesn't say is 0. Pure."""
    pairs = list(zip_longest(found, least, fillvalue=0))
    return [here for here, _ in pairs] >= [there for _, there in pairs]


def _spelled(version: Version) -> str:
    return ".".join(map(str, version))


def printed(
    argv: Sequence[str], environment: Mapping[str, str], timeout_s: float = VERSION_TIMEOUT_S
) -> str | None:
    """What a command prints on either stream; None where it fails, or is not done in time.

    Into a file: a pipe could be held open by what the command leaves behind.
    """
    with tempfile.TemporaryFile() as output:
        try:
            process = _start(argv, environment, output)
        except OSError:  # not a program, or none for this machine
            return None
        in_time = _ended(process, timeout_s)
        code = _end(process)
        text = os.pread(output.fileno(), VERSION_BYTES, 0).decode(errors="replace")
    return text if in_time and code == 0 else None


def _ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Whether the command ended in time. It is not reaped: until then its group is its own."""
    handle = os.pidfd_open(process.pid)
    try:
        return bool(select.select([handle], [], [], timeout_s)[0])
    finally:
        os.close(handle)


def _start(
    argv: Sequence[str], environment: Mapping[str, str], output: IO[bytes]
) -> subprocess.Popen[bytes]:
    path = environment.get("PATH", os.defpath)
    return subprocess.Popen(
        [shutil.which(argv[0], path=path) or argv[0], *argv[1:]],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        cwd="/",
    )


def _end(process: subprocess.Popen[bytes]) -> int:
    """Ends what is left of the command's group, and returns its exit code."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
