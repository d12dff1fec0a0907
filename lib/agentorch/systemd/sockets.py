"""The listening sockets that systemd passed: sd_listen_fds(3)."""

from __future__ import annotations

import errno
import os
import socket

from agentorch.core.errors import Misconfigured


def passed_sockets() -> list[socket.socket]:
    """Return the listening sockets of our .socket units, closed in children; none where none were
    passed.

    Their variables are taken out of the environment. Raises OSError where a descriptor is no
    listening socket, and Misconfigured where they can't be taken without python3-systemd.
    """
    if "LISTEN_FDS" not in os.environ:
        return []
    try:
        from systemd import daemon  # noqa: PLC0415  (needed where sockets are passed, nowhere else)
    except ImportError as problem:
        raise Misconfigured(
            "sockets were passed (LISTEN_FDS), and Python's module systemd, which takes them, is "
            "missing: install python3-systemd, or pip install 'agentorch[systemd]'"
        ) from problem
    names = daemon.listen_fds_with_names(unset_environment=True)
    return [taken_socket(descriptor, names[descriptor]) for descriptor in sorted(names)]


def taken_socket(descriptor: int, name: str = "") -> socket.socket:
    """Return the listening socket of a descriptor that was passed, closed in children.

    Raises OSError where it is none; `name` is the unit's FileDescriptorName=.
    """
    os.set_inheritable(descriptor, False)  # noqa: FBT003  (os's own)
    taken = socket.socket(fileno=descriptor)
    if not taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        taken.detach()
        raise OSError(errno.ENOTSOCK, "it does not listen", name or str(descriptor))
    taken.setblocking(False)  # noqa: FBT003  (socket's own)
    return taken
