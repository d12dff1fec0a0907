"""The names in pending/: the first of them, kept current by inotify.

Listing a million names takes a second, so it is not done for a claim. One listing keeps the first
names and remembers the last of them, the horizon; a name that arrives is merged in if it belongs
before the horizon. When the names are used up and there was more behind the horizon, or inotify
lost events, it lists again. So a claim costs the same behind ten jobs and behind a million.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import islice

KEPT = 50_000


class Backlog:
    """The names of pending/ in claim order, as far as they are known. Touches no disk."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._names: list[str] = []
        self._horizon: str | None = None
        self.stale = True

    def take_listing(self, names: Iterable[str]) -> None:
        """Take a whole listing, in any order; of a long one only the first names are held."""
        first: list[str] = []
        horizon: str | None = None
        rest = iter(names)
        # sort() of a sorted list with a tail is quicker than a heap of single names
        while batch := list(islice(rest, self._kept)):
            first += batch if horizon is None else [name for name in batch if name < horizon]
            first.sort()
            if len(first) > self._kept:
                horizon = first[self._kept]
                del first[self._kept :]
        self._names, self._horizon = first, horizon
        self.stale = False

    def add(self, name: str) -> None:
        """Add a name that came after the listing (or was in it already: no harm)."""
        if self._horizon is None or name < self._horizon:
            heapq.heappush(self._names, name)

    def lost_events(self) -> None:
        """Note that events were lost: the known names may be incomplete."""
        self.stale = True

    def take(self) -> str | None:
        """Return the first name; None when a listing is due (`stale`) or nothing is there."""
        if self._names:
            return heapq.heappop(self._names)
        self.stale = self.stale or self._horizon is not None
        return None
