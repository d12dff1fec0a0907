"""Messages of a service to its manager, and the watchdog's interval: sd_notify(3).

Where no manager is, nothing is said, and nothing was passed.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


def notify(*states: str, environment: Mapping[str, str] = os.environ) -> None:
    """Tells the service manager: READY=1, STATUS=…, WATCHDOG=1, STOPPING=1. Never waits."""
    path = environment.get("NOTIFY_SOCKET", "")
    if not path:
        return
    name = "\0" + path[1:] if path.startswith("@") else path
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with (
        socket.socket(socket.AF_UNIX, kind) as teller,
        contextlib.suppress(OSError),  # it is gone or busy: the next one will be heard
    ):
        teller.sendto("\n".join(states).encode("utf-8", "replace"), name)


def watchdog_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return how often WATCHDOG=1 is due, with half to spare (sd_watchdog_enabled(3)); None:
    never.
    """
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 2_000_000 if text.isdecimal() and int(text) else None
