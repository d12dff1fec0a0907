"""Third-party agents: a TOML manifest and an executable.

# /etc/agentorch/agents.d/NAME.toml
command = ["/opt/my-agent/bin/agent", "--json"]     required
name = "NAME"                                       default: the file's stem
description = "…"
binary = "agent"                                    default: the command's last component
version_argv = ["/opt/my-agent/bin/agent", "--version"]
install = "…"                                       how to get it, in words
needs_network = false                               can't work behind network deny
needs_git = true                                    refuses a source that is no git repository
passes = ["MY_KEY"]                                 of the server's environment
read_only = ["/opt/my-agent"]                       visible in the sandbox
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentorch.agents import json_lines
from agentorch.agents.base import NAME, Capabilities, Command, Request, Simulation
from agentorch.agents.simulated import simulate
from agentorch.config import toml_tables
from agentorch.core.errors import Misconfigured
from agentorch.core.job import Outcome
from agentorch.core.process_end import Exit, Line

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What every sandbox shows anyway.
_SYSTEM = Path("/usr")


@dataclass(frozen=True)
class ManifestAgent:
    """An executable that speaks the protocol of `protocol`."""

    name: str
    argv: tuple[str, ...]
    capabilities: Capabilities
    passes: tuple[str, ...] = ()
    description: str = ""

    def command(self, request: Request) -> Command:
        return Command(
            self.argv,
            stdin=json_lines.request_bytes(request),
            environment={} if request.endpoint is None else request.endpoint.proxies,
            passes=self.passes,
        )

    def provider(self, model: str | None) -> str | None:
        return None

    def is_end(self, line: Line) -> bool:
        return False

    def outcome(self, exit_: Exit, lines: Iterable[Line]) -> Outcome:
        return json_lines.outcome(self.name, exit_, lines)

    def simulate(self, request: Request) -> Simulation:
        return simulate(request)


def read(path: Path) -> ManifestAgent:
    """Return the agent that a manifest describes. Raises Misconfigured with a line a problem."""
    return agent_of(toml_tables.read(path), path)


def agent_of(document: Mapping[str, object], path: Path) -> ManifestAgent:
    """Return the agent that these keys describe; `path` is for messages and the default name.
    Pure.
    """
    problems = [f"{path}: {key}: unknown key" for key in document if key not in _KEYS]
    found: dict[str, object] = {"name": path.stem}
    for key, reader in _KEYS.items():
        if key not in document and key not in ("command", "name"):
            continue
        try:
            found[key] = reader(document.get(key, found.get(key)))
        except ValueError as problem:
            problems.append(f"{path}: {key}: {problem}")
    if problems:
        raise Misconfigured(*problems)
    return _agent(found)


def _agent(found: Mapping[str, object]) -> ManifestAgent:
    argv = _words(found["command"])
    program = Path(argv[0])
    own = (program,) if program.is_absolute() and not program.is_relative_to(_SYSTEM) else ()
    capabilities = Capabilities(
        binary=str(found.get("binary", program.name)),
        program=str(program),
        version_argv=_words(found.get("version_argv", [])),
        install=str(found.get("install", "")),
        needs_network=bool(found.get("needs_network", False)),
        needs_git=bool(found.get("needs_git", True)),
        read_only=(*own, *map(Path, _words(found.get("read_only", [])))),
    )
    return ManifestAgent(
        name=str(found["name"]),
        argv=argv,
        capabilities=capabilities,
        passes=_words(found.get("passes", [])),
        description=str(found.get("description", "")),
    )


# ---- one value --------------------------------------------------------------------------------
# Each reader returns the value or raises ValueError with what was expected.


def _boolean(value: object) -> bool:
    match value:
        case bool():
            return value
    raise ValueError("expected true or false")


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("expected a string")
    return value


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(word, str) and word and "\0" not in word for word in value
    ):
        raise ValueError("expected a list of strings, none of them empty")
    return tuple(value)


def _name(value: object) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError(f"{value!r}: expected letters, digits and . _ -, 128 at most")
    return value


def _command(value: object) -> tuple[str, ...]:
    words = _words(value)
    if not words or ("/" in words[0] and not words[0].startswith("/")):
        raise ValueError("expected an absolute path, or a name on PATH, and its arguments")
    return words


def _paths(value: object) -> tuple[str, ...]:
    words = _words(value)
    if not all(word.startswith("/") for word in words):
        raise ValueError("expected absolute paths")
    return words


def _variables(value: object) -> tuple[str, ...]:
    words = _words(value)
    if not all(_VARIABLE.fullmatch(word) for word in words):
        raise ValueError("expected names of variables")
    return words


_KEYS: dict[str, Callable[[object], object]] = {
    "name": _name,
    "command": _command,
    "description": _text,
    "binary": _name,
    "version_argv": _words,
    "install": _text,
    "needs_network": _boolean,
    "needs_git": _boolean,
    "passes": _variables,
    "read_only": _paths,
}
