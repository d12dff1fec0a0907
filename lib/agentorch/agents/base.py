"""Adapters: two pure functions and a table for each agent, and the values that they use.

`command` turns a request into a command line; `outcome` turns how the command ended and what it
printed into an Outcome. Neither starts a program, reads a clock, or touches a file: the step does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agentorch.core.abilities import ANYTHING, Abilities
from agentorch.core.job import Outcome
from agentorch.core.process_end import Exit, Line

# What an agent may be called.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# What a session may be called that an agent is to go on with.
SESSION = NAME


@dataclass(frozen=True)
class Endpoint:
    """The model's address for an agent: the broker, as it is reached from inside the sandbox.

    `url` is `http://127.0.0.1:PORT/PROVIDER`, without the `/v1` that some clients want; `token`
    stands for the key, in the header where the key would be. `proxy_url` has the token in it, and
    is for the hosts that the step may reach besides (HTTPS_PROXY), None where there are none.
    `login`: there is no key, the agent has its own login in HOME, and reaches the vendor's hosts
    through the proxy.
    """

    provider: str
    url: str
    token: str
    proxy_url: str | None = None
    login: bool = False

    @property
    def proxies(self) -> dict[str, str]:
        """The variables by which programs find the hosts that they may reach besides."""
        if self.proxy_url is None:
            return {}
        return {
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), self.proxy_url),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
        }


@dataclass(frozen=True)
class Request:
    """A request to an agent, with the paths as the agent sees them.

    `prompt` is everything, the system prompt too; `system` and `body` are its two parts for agents
    that take them apart. `reads_only`: the workspace is read-only for this step. `resume` is the
    session to go on with. `tools` and `options` are those of the step, checked against Abilities.
    `confined`: it runs in a sandbox of ours.
    """

    job_id: str
    step_id: str
    attempt: int
    agent: str
    role: str
    goal: str
    prompt: str
    script: str
    work: Path
    home: Path
    artifacts: Path
    project_id: str | None = None
    tools: tuple[str, ...] | None = None
    timeout_s: int = 600
    system: str = ""
    body: str = ""
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    reads_only: bool = False
    confined: bool = True
    resume: str | None = None
    endpoint: Endpoint | None = None


@dataclass(frozen=True)
class Command:
    """A program to run: argv, the bytes on standard input, variables, and files to place below
    HOME.

    `environment` names are set as given; `passes` are names taken from the server's environment
    where ENV_ALLOWLIST has them: this agent's own keys and nobody else's.
    """

    argv: tuple[str, ...]
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    passes: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Capabilities:
    """The needs and abilities of an agent.

    `binary` is the name that ALLOWED_BINARIES and MIN_BINARY_VERSIONS go by; it is looked for on
    PATH, or where `program` says. `version_argv` prints its version, `install` says in words how
    to get it. `needs_network`: it can't work behind network deny. `read_only` paths are made
    visible in the sandbox.

    `provider` is the model provider that it uses where its model does not name one; None: it needs
    none, and gets no endpoint. `login_hosts` are what it talks to with a login of its own,
    `login_files` the files below HOME that make one, and `login_argv` is its own login command.
    `minimum` is the oldest version that this adapter is known to work with. `masked` are paths
    below the workspace that it must not see.
    `requires` are programs on PATH that it can't do its work without.
    `first_output_s` is the longest that it stays without any output at its start; 0: any time.
    `linger_s` is how long it may take to leave after it said that it was done.
    """

    binary: str
    version_argv: tuple[str, ...] = ()
    install: str = ""
    needs_network: bool = False
    needs_git: bool = True
    read_only: tuple[Path, ...] = ()
    program: str = ""
    minimum: str = ""
    provider: str | None = None
    login_hosts: tuple[str, ...] = ()
    login_files: tuple[str, ...] = ()
    login_argv: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    first_output_s: float = 0
    linger_s: float = 5
    abilities: Abilities = ANYTHING


@dataclass(frozen=True)
class Simulation:
    """A simulated attempt: files to write below the workspace, and its outcome."""

    files: Mapping[str, bytes]
    outcome: Outcome


class Agent(Protocol):
    """An adapter. `simulate` answers without a program; `real` is None where there is none yet."""

    @property
    def name(self) -> str:
        """The name that jobs use."""

    @property
    def capabilities(self) -> Capabilities | None:
        """None: this agent can only be simulated here."""

    def command(self, request: Request) -> Command:
        """Return the command line for a request. Pure."""

    def provider(self, model: str | None) -> str | None:
        """Return the model provider for this model; None: it needs none. Pure."""

    def is_end(self, line: Line) -> bool:
        """Return whether the agent says with this line that it is done; it may leave now. Pure."""

    def outcome(self, exit_: Exit, lines: Iterable[Line]) -> Outcome:
        """Return what the run came to.

        `lines` come as they were printed, and may be read once. Pure.
        """

    def simulate(self, request: Request) -> Simulation:
        """Return a deterministic stand-in for a run. Pure."""
