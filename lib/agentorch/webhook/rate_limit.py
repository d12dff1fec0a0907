"""How often a client may ask: a fixed window that begins with its first request.

`admit` decides on two numbers; `Limiter` keeps these for a bounded number of clients. Those that
there is no room for share one window, so a flood of addresses costs no memory and gains nothing.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

MOST_CLIENTS = 10_000
# The window of all those that there is no room for.
THE_OTHERS = ""


@dataclass(frozen=True)
class Limit:
    """So many requests in a window; 0: as many as one likes."""

    requests: int
    window_s: float


@dataclass(frozen=True)
class Window:
    """A client's window: when it began (any clock, seconds), how many requests were in it."""

    began_s: float
    requests: int


def admit(window: Window | None, limit: Limit, now_s: float) -> tuple[Window, float | None]:
    """The window after a request, and None: go on; or after how many seconds it may. Pure."""
    if window is None or now_s - window.began_s >= limit.window_s:
        return Window(now_s, 1), None
    if window.requests >= limit.requests:
        return window, window.began_s + limit.window_s - now_s
    return Window(window.began_s, window.requests + 1), None


class Limiter:
    """The windows of the clients that asked of late."""

    def __init__(self, limit: Limit, most_clients: int = MOST_CLIENTS) -> None:
        self._limit = limit
        self._most = most_clients
        self._windows: dict[str, Window] = {}
        self._lock = threading.Lock()

    @property
    def clients(self) -> int:
        return len(self._windows)

    def asks(self, client: str, now_s: float) -> int | None:
        """Counts a request; None: go on, else after how many whole seconds it may be tried."""
        if not self._limit.requests:
            return None
        with self._lock:
            kept = self._place(client, now_s)
            # taken out and put in again: the first is always the one that began first
            before = self._windows.get(kept)
            window, wait_s = admit(before, self._limit, now_s)
            if before is not None and window.began_s != before.began_s:
                del self._windows[kept]
            self._windows[kept] = window
        return None if wait_s is None else max(1, math.ceil(wait_s))

    def _place(self, client: str, now_s: float) -> str:
        if client in self._windows or len(self._windows) < self._most:
            return client
        # a sweep costs as much as there are clients: only when the oldest of them is over
        oldest = next(iter(self._windows.values()))
        if now_s - oldest.began_s >= self._limit.window_s:
            self._windows = {
                name: window
                for name, window in self._windows.items()
                if now_s - window.began_s < self._limit.window_s
            }
        return client if len(self._windows) < self._most else THE_OTHERS

    def over_in_s(self, now_s: float) -> float:
        """After how many seconds nothing that is known here matters to anybody; 0: now."""
        with self._lock:
            newest = max((it.began_s for it in self._windows.values()), default=-math.inf)
        return max(0.0, newest + self._limit.window_s - now_s)
