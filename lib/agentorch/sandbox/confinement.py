"""The values that a sandbox is spoken of in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentorch.core.job import Network

# Where the broker's socket is inside.
BROKER = Path("/run/agentorch/broker")


@dataclass(frozen=True)
class Wrapper:
    """The program that confines (SANDBOX_WRAPPER) and the server's own arguments for it."""

    command: str = "bwrap"
    arguments: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Return what it is known as: the last component of the command."""
        return Path(self.command).name


@dataclass(frozen=True)
class Confinement:
    """The confinement of one attempt. Paths are the same inside as outside.

    `name` is unique among all attempts: a unit's or a container's. Writable are `work` (unless
    `work_read_only`) and `home`; `artifacts` and `read_only` can be read where they exist.
    `masked` paths lie below work or home and look empty inside. `environment` is the whole
    environment. `programs` are those that are run beside the command's own. `broker` is a socket
    of the host, to be found inside at BROKER.
    """

    name: str
    work: Path
    home: Path
    artifacts: Path
    network: Network
    environment: Mapping[str, str]
    read_only: tuple[Path, ...] = ()
    work_read_only: bool = False
    masked: tuple[Path, ...] = ()
    programs: tuple[str, ...] = ()
    broker: Path | None = None


@dataclass(frozen=True)
class Confined:
    """A confined command to start, once, instead of the command.

    `environment` is the client's own and `pass_fds` are the descriptors that it inherits.
    `stop_argv` ends what killing the client does not end; None where that is enough.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    pass_fds: tuple[int, ...] = ()
    stop_argv: tuple[str, ...] | None = None
