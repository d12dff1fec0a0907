"""systemd-run(1): the attempt as a transient unit with a root of its own.

The manager builds the file system and the network namespace; unshare(1) inside the unit adds the
user and pid namespaces that systemd 252 can't give, and setpriv(1) then takes every capability.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from agentorch.core.job import Network
from agentorch.sandbox.confinement import Confinement, Wrapper
from agentorch.sandbox.host import ETC, ETC_NETWORK, TEMPORARY_BYTES, TOP, Host, Masks
from agentorch.sandbox.wrapper_syntax import plain

KIND = "systemd-run"
MANAGER_VARIABLES = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")

# What systemd's own filter can refuse: unshare(1) inside still needs mount and clone.
KERNEL = (
    "NoNewPrivileges=yes",
    "SystemCallArchitectures=native",
    "SystemCallErrorNumber=EPERM",
    "SystemCallFilter=~@keyring @debug @module @reboot @swap @raw-io @clock @cpu-emulation",
    "SystemCallFilter=~@obsolete bpf userfaultfd io_uring_setup io_uring_enter io_uring_register",
    "SystemCallFilter=~open_by_handle_at process_vm_readv process_vm_writev kcmp setns",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
)

# Much of /proc obeys the uid alone, and root's is root's in every namespace.
PROTECT_PROC = ("/usr/bin/sh", "-c", 'mount -o remount,bind,ro /proc && exec "$@"', "sh")


def run_argv(
    wrapper: Wrapper,
    confinement: Confinement,
    host: Host,
    argv: Iterable[str],
    *,
    variables: Path,
) -> tuple[str, ...]:
    """Return the client's command line. `variables` is a file that the manager can read: what went
    through the bus could be read by every user.
    """
    properties = [
        *_properties(confinement, host.masks, variables),
        # a user's manager has no right to namespaces of its own without this one
        *(["PrivateUsers=yes"] if host.user[0] else []),
    ]
    return (
        wrapper.command,
        *_manager(host.user),
        "--quiet",
        "--pipe",
        "--wait",
        "--collect",
        *("--service-type", "exec"),
        *("--unit", f"{confinement.name}.service"),
        # by default the journal shows the whole command
        *("--description", f"agentorch attempt {confinement.name}"),
        *("--working-directory", plain(confinement.work, KIND)),
        *(word for property_ in properties for word in ("--property", property_)),
        *wrapper.arguments,
        "--",
        # the manager expands variables in arguments
        *(word.replace("$", "$$") for word in (*_inside(host.user), *argv)),
    )


def stop_argv(confinement: Confinement, user: tuple[int, int]) -> tuple[str, ...]:
    """End the unit at once (KillSignal= is SIGKILL)."""
    return ("systemctl", *_manager(user), "stop", f"{confinement.name}.service")


def client_environment(server: Mapping[str, str]) -> dict[str, str]:
    """Return what systemd-run needs to find its manager."""
    return {name: server[name] for name in ("PATH", *MANAGER_VARIABLES) if name in server}


def _manager(user: tuple[int, int]) -> list[str]:
    return ["--user"] if user[0] else ["--system"]


def _inside(user: tuple[int, int]) -> list[str]:
    return [
        "/usr/bin/unshare",
        "--user",
        "--map-current-user",
        # for setpriv: emptying the bounding set is a privilege of its own
        "--keep-caps",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--ipc",
        "--uts",
        "--",
        *(PROTECT_PROC if not user[0] else ()),
        "/usr/bin/setpriv",
        "--no-new-privs",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
        "--",
    ]


def _properties(confinement: Confinement, masks: Masks, variables: Path) -> list[str]:
    return [
        f"EnvironmentFile={variables}",
        f"PrivateNetwork={'yes' if confinement.network is Network.DENY else 'no'}",
        "TemporaryFileSystem=/:ro",
        *_system(confinement.network),
        *_ours(confinement),
        *(f"TemporaryFileSystem={plain(path, KIND)}:ro" for path in masks.directories),
        *(f"BindReadOnlyPaths=/dev/null:{plain(path, KIND)}" for path in masks.files),
        *KERNEL,
        "KillSignal=SIGKILL",
    ]


def _system(network: Network) -> list[str]:
    files = (*ETC, *(ETC_NETWORK if network is Network.ALLOW else ()))
    return [
        "BindReadOnlyPaths=/usr",
        *(f"BindReadOnlyPaths=-/{name}" for name in TOP),
        *(f"BindReadOnlyPaths=-/etc/{name}" for name in files),
        "PrivateDevices=yes",
        "BindPaths=/proc",
        f"TemporaryFileSystem=/tmp:rw,mode=1777,size={TEMPORARY_BYTES}",
    ]


def _ours(confinement: Confinement) -> list[str]:
    work = "BindReadOnlyPaths" if confinement.work_read_only else "BindPaths"
    return [
        *(
            f"BindReadOnlyPaths=-{plain(path, KIND)}"
            for path in (*confinement.read_only, confinement.artifacts)
        ),
        f"{work}={plain(confinement.work, KIND)}",
        f"BindPaths={plain(confinement.home, KIND)}",
    ]
