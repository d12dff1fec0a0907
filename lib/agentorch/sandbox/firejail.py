"""firejail(1): takes away by name, so everything at the top of the host is named here.

Top directories that hold a path of ours show that path alone (a whitelist); the others are
blacklisted, but those that programs live in. What appears there later is visible to later jails
only as far as a new listing names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agentorch.core.job import Network
from agentorch.sandbox.confinement import Confinement, Wrapper
from agentorch.sandbox.host import ETC, ETC_NETWORK, TOP, Host, Masks
from agentorch.sandbox.wrapper_syntax import plain

KIND = "firejail"
# /tmp and /etc get lists of their own; firejail keeps its state in /run/firejail.
SYSTEM = frozenset({*TOP, "usr", "proc", "dev", "etc", "run", "tmp"})


def listing() -> tuple[Path, ...]:
    """Return the host's top directories, and what lies in /run."""
    tops = (path for path in Path("/").iterdir() if path.name not in SYSTEM)
    runs = (path for path in Path("/run").iterdir() if path.name != KIND)
    return tuple(sorted((*tops, *runs)))


def jail_argv(
    wrapper: Wrapper,
    confinement: Confinement,
    host: Host,
    argv: Iterable[str],
    *,
    hidden: Iterable[Path],
) -> tuple[str, ...]:
    """Return the jail's command line; `hidden` is a listing of the host."""
    return (
        wrapper.command,
        "--quiet",
        "--noprofile",
        "--deterministic-exit-code",
        "--deterministic-shutdown",
        *(["--net=none"] if confinement.network is Network.DENY else []),
        "--private-dev",
        "--ipc-namespace",
        "--noroot",
        "--caps.drop=all",
        "--nonewprivs",
        "--seccomp",
        "--dbus-user=none",
        "--dbus-system=none",
        *_places(confinement, host.masks, hidden),
        f"--private-cwd={plain(confinement.work, KIND)}",
        *wrapper.arguments,
        "--",
        *argv,
    )


def _places(confinement: Confinement, masks: Masks, hidden: Iterable[Path]) -> list[str]:
    shown = _visible_paths(confinement)
    return [
        *(f"--blacklist={plain(path, KIND)}" for path in hidden if not _holds(path, shown)),
        *(f"--whitelist=/etc/{name}" for name in _etc(confinement.network)),
        *(f"--whitelist={plain(path, KIND)}" for path in shown if not _is_system_path(path)),
        *_private_tmp(shown),
        # for root, who owns it; what is whitelisted is a mount of its own and stays as it is
        "--read-only=/",
        *(f"--read-only={plain(path, KIND)}" for path in _read_only(confinement)),
        *(f"--blacklist={plain(path, KIND)}" for path in (*masks.directories, *masks.files)),
    ]


def _visible_paths(confinement: Confinement) -> tuple[Path, ...]:
    mine = (confinement.work, confinement.home, confinement.artifacts, *confinement.read_only)
    return tuple(dict.fromkeys(mine))


def _read_only(confinement: Confinement) -> tuple[Path, ...]:
    work = (confinement.work,) if confinement.work_read_only else ()
    paths = (*confinement.read_only, confinement.artifacts, *work)
    return tuple(path for path in paths if not _is_system_path(path))


def _etc(network: Network) -> tuple[str, ...]:
    return (*ETC, *ETC_NETWORK) if network is Network.ALLOW else ETC


def _private_tmp(shown: Iterable[Path]) -> list[str]:
    # a whitelist below /tmp already makes the rest of it private
    return [] if _holds(Path("/tmp"), shown) else ["--private-tmp"]


def _holds(top: Path, shown: Iterable[Path]) -> bool:
    return any(path.is_relative_to(top) for path in shown)


def _is_system_path(path: Path) -> bool:
    return path.is_relative_to("/usr")
