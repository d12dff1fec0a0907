"""The rate limit of clients: a fixed window of time that begins with a client's first request.

`admit` decides on two numbers; `Limiter` keeps these numbers for a bounded number of clients. All
further clients share one window, so a flood of addresses neither costs memory nor gains anything.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

MAX_CLIENTS = 10_000
# The name of the window that all further clients share.
SHARED_WINDOW = ""


@dataclass(frozen=True)
class Limit:
    """The number of requests that a client may make in a window; 0 means no limit."""

    requests: int
    window_s: float


@dataclass(frozen=True)
class Window:
    """A client's window: when it began (any clock, seconds), how many requests were in it."""

    began_s: float
    requests: int


def admit(window: Window | None, limit: Limit, now_s: float) -> tuple[Window, float | None]:
    """Return the window after a request, and the seconds to wait (None: it may go on). Pure."""
    if window is None or now_s - window.began_s >= limit.window_s:
        return Window(now_s, 1), None
    if window.requests >= limit.requests:
        return window, window.began_s + limit.window_s - now_s
    return Window(window.began_s, window.requests + 1), None


class Limiter:
    """The windows of the clients that made a request recently."""

    def __init__(self, limit: Limit, max_clients: int = MAX_CLIENTS) -> None:
        self._limit = limit
        self._most = max_clients
        self._windows: dict[str, Window] = {}
        self._lock = threading.Lock()

    @property
    def clients(self) -> int:
        return len(self._windows)

    def count_request(self, client: str, now_s: float) -> int | None:
        """Count a request; return None where it may go on, else the whole seconds to wait."""
        if not self._limit.requests:
            return None
        with self._lock:
            name = self._window_name(client, now_s)
            # A new window is put at the end of the dict, so the first is always the oldest.
            before = self._windows.get(name)
            window, wait_s = admit(before, self._limit, now_s)
            if before is not None and window.began_s != before.began_s:
                del self._windows[name]
            self._windows[name] = window
        return None if wait_s is None else max(1, math.ceil(wait_s))

    def _window_name(self, client: str, now_s: float) -> str:
        if client in self._windows or len(self._windows) < self._most:
            return client
        # Removing old windows looks at all of them: so only when the oldest has ended.
        oldest = next(iter(self._windows.values()))
        if now_s - oldest.began_s >= self._limit.window_s:
            self._windows = {
                name: window
                for name, window in self._windows.items()
                if now_s - window.began_s < self._limit.window_s
            }
        return client if len(self._windows) < self._most else SHARED_WINDOW

    def remaining_s(self, now_s: float) -> float:
        """Return the seconds until all windows have ended; 0 where none is open."""
        with self._lock:
            newest = max((it.began_s for it in self._windows.values()), default=-math.inf)
        return max(0.0, newest + self._limit.window_s - now_s)
