"""What an adapter is: two pure functions and a table; and the values they speak in.

`command` turns a request into a command line; `outcome` turns how the command ended and what it
printed into an Outcome. Neither starts a program, reads a clock, or touches a file: the step does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from agentorch.job import Outcome


class Ending(StrEnum):
    """Why the agent's process is no longer there, as its watcher saw it."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMEOUT = "timeout"
    STALLED = "stalled"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    DISK_FULL = "disk_full"
    OUTPUT_LIMIT = "output_limit"


@dataclass(frozen=True)
class Exit:
    """How the agent's process ended. `code` is its exit code, None where a signal ended it."""

    ending: Ending
    code: int | None
    signal: int | None
    duration_s: float
    oom: bool = False


@dataclass(frozen=True)
class Line:
    """A line that the agent printed, without its newline, decoded (invalid bytes replaced).

    `cut` says that the line was longer than what is kept of one.
    """

    stream: str
    text: str
    cut: bool = False


@dataclass(frozen=True)
class Request:
    """What an agent is asked, with the paths as the agent sees them."""

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


@dataclass(frozen=True)
class Command:
    """What to run: argv, the bytes on standard input, variables, and files to place below HOME.

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
    """What an agent needs and can do.

    `binary` is the name that ALLOWED_BINARIES and MIN_BINARY_VERSIONS go by; it is looked for on
    PATH, or where `program` says. `version_argv` prints its version, `install` says in words how
    to get it. `needs_network`: it can't work behind network deny. `read_only` paths are made
    visible in the sandbox.
    """

    binary: str
    version_argv: tuple[str, ...] = ()
    install: str = ""
    needs_network: bool = False
    needs_git: bool = True
    read_only: tuple[Path, ...] = ()
    program: str = ""


@dataclass(frozen=True)
class Simulation:
    """What a simulated attempt does: files to write below the workspace, and its outcome."""

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
        """The command line for a request. Pure."""

    def outcome(self, exit_: Exit, lines: Iterable[Line]) -> Outcome:
        """What the run came to. `lines` come as they were printed, and may be read once. Pure."""

    def simulate(self, request: Request) -> Simulation:
        """A deterministic stand-in for a run. Pure."""
