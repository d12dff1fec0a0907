"""The listening sockets that systemd passed: sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

_FIRST_FD = 3


def passed_sockets(environment: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """Return the listening sockets of our .socket units, closed in children; none where none were
    passed.

    Their variables are taken out of the environment. Raises OSError where a descriptor is none.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    return [_socket(_FIRST_FD + place) for place in range(int(count))]


def _socket(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)  # noqa: FBT003  (os's own)
    passed = socket.socket(fileno=descriptor)
    passed.setblocking(False)  # noqa: FBT003  (socket's own)
    return passed
