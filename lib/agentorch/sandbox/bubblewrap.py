"""The default sandbox, bwrap(1): nothing is there that is not named here.

New user, pid, ipc, uts, cgroup and, for deny, network namespaces; no capability; the seccomp
filter; /usr and single files of /etc read-only; private /tmp, /proc, /dev. Writable are the work
tree and the agent's home. The user is the same inside as outside, so files belong to one owner.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agentorch.core.job import Network
from agentorch.sandbox.confinement import BROKER, Confinement, Wrapper
from agentorch.sandbox.host import (
    ETC,
    ETC_NETWORK,
    SHARED_MEMORY_BYTES,
    TEMPORARY_BYTES,
    Host,
    Masks,
)

HOSTNAME = "agentorch"


@dataclass(frozen=True)
class Descriptors:
    """The descriptors that bwrap reads its filter from, and that it holds while anything runs
    inside.
    """

    filter: int
    alive: int | None = None


def client_argv(wrapper: Wrapper, arguments_fd: int, argv: Iterable[str]) -> tuple[str, ...]:
    """Return what ps shows, inside too: neither paths nor variables."""
    return (wrapper.command, "--args", str(arguments_fd), "--", *argv)


def options_argv(
    confinement: Confinement, host: Host, descriptors: Descriptors, extra: tuple[str, ...] = ()
) -> list[str]:
    """Everything that goes through --args; `extra` are the server's own arguments."""
    return [
        *_namespaces(confinement.network),
        *("--seccomp", str(descriptors.filter)),
        *(("--sync-fd", str(descriptors.alive)) if descriptors.alive is not None else ()),
        *_variables(confinement.environment),
        *_system(host, confinement.network),
        *_kernel(),
        *_ours(confinement),
        *_mask_options(host.masks),
        *extra,
        *("--remount-ro", "/"),
        *("--chdir", str(confinement.work)),
    ]


def _namespaces(network: Network) -> list[str]:
    return [
        "--unshare-user",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
        *(["--unshare-net"] if network is Network.DENY else []),
        "--die-with-parent",
        "--new-session",
        *("--hostname", HOSTNAME),
        *("--cap-drop", "ALL"),
    ]


def _variables(environment: Mapping[str, str]) -> list[str]:
    pairs = [("--setenv", name, value) for name, value in environment.items()]
    return ["--clearenv", *(word for pair in pairs for word in pair)]


def _system(host: Host, network: Network) -> list[str]:
    files = (*ETC, *(ETC_NETWORK if network is Network.ALLOW else ()))
    return [
        *("--ro-bind", "/usr", "/usr"),
        *(word for path, to in host.links.items() for word in ("--symlink", to, path)),
        *(word for path in host.directories for word in ("--ro-bind", path, path)),
        *(word for name in files for word in ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")),
    ]


def _kernel() -> list[str]:
    return [
        *("--proc", "/proc"),
        # much of /proc obeys the uid alone, and root's is root's in every namespace
        *("--remount-ro", "/proc"),
        # bwrap is process 1 and holds the step's lock: by /proc/1/fd it could be opened anew,
        # and then be written or made unreadable, although nothing of the host is writable here
        *("--perms", "0555"),
        *("--tmpfs", "/proc/1"),
        *("--remount-ro", "/proc/1"),
        *("--dev", "/dev"),
        *("--size", str(SHARED_MEMORY_BYTES)),
        *("--perms", "1777"),
        *("--tmpfs", "/dev/shm"),
        *("--remount-ro", "/dev"),
        *("--size", str(TEMPORARY_BYTES)),
        *("--perms", "1777"),
        *("--tmpfs", "/tmp"),
        *("--dir", "/run"),
        *("--dir", "/var"),
        *("--symlink", "../tmp", "/var/tmp"),
    ]


def _ours(confinement: Confinement) -> list[str]:
    work = "--ro-bind" if confinement.work_read_only else "--bind"
    return [
        *(
            word
            for path in confinement.read_only
            for word in ("--ro-bind-try", str(path), str(path))
        ),
        *("--ro-bind-try", str(confinement.artifacts), str(confinement.artifacts)),
        *(work, str(confinement.work), str(confinement.work)),
        *("--bind", str(confinement.home), str(confinement.home)),
        # connect(2) asks for nothing that a read-only mount refuses
        *(("--ro-bind", str(confinement.broker), str(BROKER)) if confinement.broker else ()),
    ]


def _mask_options(masks: Masks) -> list[str]:
    return [
        *(
            word
            for path in masks.directories
            for word in ("--tmpfs", str(path), "--remount-ro", str(path))
        ),
        *(word for path in masks.files for word in ("--ro-bind", "/dev/null", str(path))),
    ]


def encode(options: Iterable[str]) -> bytes:
    """Return the options as --args reads them: NUL after each."""
    return b"".join(os.fsencode(option) + b"\0" for option in options)
