"""The agents' own logins: a HOME for each agent, which its own login command writes.

    STATE/logins/AGENT/         0700; what login_files name is copied into an attempt's HOME

Nothing but that command runs with this HOME, and no sandbox shows it.
"""

from __future__ import annotations

import signal
import stat
import subprocess
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from agentorch.agents.base import Capabilities
from agentorch.config.settings import Settings
from agentorch.core.errors import Refused
from agentorch.core.policy import DEFAULT_LANG, DEFAULT_PATH
from agentorch.preflight.check import find_program
from agentorch.storage import atomic
from agentorch.storage.copy_tree import remove as remove_tree


def home_of(settings: Settings, agent: str) -> Path:
    """Return the HOME that an agent's login is made in."""
    return settings.logins / agent


def files(settings: Settings, agent: str, capabilities: Capabilities) -> Mapping[str, Path]:
    """Those of an agent's login_files that are there, by their names below HOME."""
    home = home_of(settings, agent)
    paths = {name: home / name for name in capabilities.login_files}
    return {name: path for name, path in paths.items() if _is_regular(path)}


def is_there(settings: Settings, agent: str, capabilities: Capabilities) -> bool:
    """Return whether an agent has a login: the first of its login_files is the one that makes
    it.
    """
    first = capabilities.login_files[:1]
    return bool(first) and first[0] in files(settings, agent, capabilities)


def _is_regular(path: Path) -> bool:
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


# ---- making and removing one ------------------------------------------------------------------


def login(
    settings: Settings, agent: str, capabilities: Capabilities, arguments: Sequence[str]
) -> int:
    """Run an agent's own login on our standard streams; its exit code, 128+N for signal N.

    Raises Refused where the agent has none, or its program is not there.
    """
    path = settings.environment.get("PATH", DEFAULT_PATH)
    program = find_program(capabilities, path)
    if program is None:
        install = f": {capabilities.install}" if capabilities.install else ""
        raise Refused(f"{capabilities.binary!r} is not on PATH ({path}){install}")
    home = home_of(settings, agent)
    with atomic.disk_trouble(home):
        atomic.make_directory(settings.state_directory)
        atomic.make_directory(home, 0o700)
        home.chmod(0o700)
    code = _run(
        login_argv(capabilities, program, arguments),
        login_environment(settings.environment, path, home),
        home,
    )
    for name in files(settings, agent, capabilities):
        (home / name).chmod(0o600)
    return code


def login_argv(
    capabilities: Capabilities, program: str, arguments: Sequence[str]
) -> tuple[str, ...]:
    """Return an agent's login command; `arguments` take the place of the options that it has by
    itself.
    """
    words = capabilities.login_argv[1:]
    if arguments:
        words = tuple(takewhile(lambda word: not word.startswith("-"), words))
    return (program, *words, *arguments)


def login_environment(server: Mapping[str, str], path: str, home: Path) -> dict[str, str]:
    """All that a login gets: nothing of ours, no key, no other configuration."""
    return {
        "PATH": path,
        "HOME": str(home),
        "TERM": server.get("TERM") or "dumb",
        "LANG": server.get("LANG") or DEFAULT_LANG,
    }


def _run(argv: Sequence[str], environment: Mapping[str, str], home: Path) -> int:
    try:
        process = subprocess.Popen(argv, env=dict(environment), cwd=home, umask=0o077)
    except OSError as problem:  # found, and no program for this machine
        raise Refused(f"{argv[0]}: {problem.strerror}") from problem
    # the terminal's interrupt is for the login, which has it from the terminal, too
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def remove(settings: Settings, agent: str) -> None:
    """Remove an agent's login, whatever is in its HOME. Raises Refused where there is none."""
    home = home_of(settings, agent)
    if not home.is_dir():
        raise Refused(f"agent {agent!r} has no login here")
    remove_tree(home)
