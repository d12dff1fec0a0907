"""Messages of a service to its manager, and the watchdog's interval: sd_notify(3).

Where no manager is, nothing is sent. A manager that does not read (it is stopped, or its queue is
full) never holds a service up: the socket does not wait, and what it doesn't take is lost, as the
next status replaces it anyway.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from sdnotify import SystemdNotifier

_notifiers: list[SystemdNotifier] = []


def notify(*states: str) -> None:
    """Send states to the service manager: READY=1, STATUS=…, WATCHDOG=1, STOPPING=1. Never waits.

    The socket is connected at the first call and kept; see `leave`.
    """
    if "NOTIFY_SOCKET" not in os.environ:
        return
    if not _notifiers:
        notifier = SystemdNotifier()
        if notifier.socket is None:  # it can't be reached now: the next call tries again
            return
        notifier.socket.setblocking(False)  # noqa: FBT003  (socket's own)
        _notifiers.append(notifier)
    # sdnotify encodes latin-1 and drops a text that has none: so it is given UTF-8's bytes as that
    text = "\n".join(states).encode("utf-8", "replace").decode("latin-1")
    _notifiers[0].notify(text)


def leave() -> None:
    """Close the socket and forget the manager: what follows in this process is not its service."""
    os.environ.pop("NOTIFY_SOCKET", None)
    while _notifiers:
        _notifiers.pop().socket.close()


def watchdog_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return how often WATCHDOG=1 is due, with half to spare (sd_watchdog_enabled(3)); None:
    never.
    """
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 2_000_000 if text.isdecimal() and int(text) else None
