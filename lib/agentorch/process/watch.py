"""Waits for a program's end, and decides when it must be ended before: limits, life, wishes.

The end and the caller's wish are events. CPU time, I/O and free space make none, so they are looked
at from time to time. So is output: inotify(7) would tell, but closing an instance that had a watch
takes the kernel 8 to 13 ms, on every step.
"""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agentorch.core.process_end import Ending, Line
from agentorch.process.output import Followers
from agentorch.system import procfs
from agentorch.system.descendants import Descendants

# What a look at the descendants costs grows with the host's processes.
_LOOK_S = 30.0
_LOOK_AT_DISK_S = 1.0
_LOOKS_PER_IDLE = 4
_FOLLOW_LEAST_S = 0.01
_FOLLOW_MOST_S = 0.25


@dataclass(frozen=True)
class Limits:
    """The limits of a program. `idle_s` and `min_free_bytes` are off at 0.

    `watched` is a path on the filesystem whose free space counts; `max_stream_bytes` bounds stdout
    and stderr each. `first_output_s` (off at 0) is by when something must have been printed,
    `linger_s` how long it may stay after a line that says that it is done.
    """

    timeout_s: float
    watched: Path
    idle_s: float = 0
    grace_s: float = 5
    min_free_bytes: int = 0
    max_stream_bytes: int = 2 << 30
    first_output_s: float = 0
    linger_s: float = 5


class Stops(Protocol):
    """The caller's wish to stop."""

    def fileno(self) -> int:
        """Become readable when there may be a reason."""

    def reason(self) -> Ending | None:
        """Return CANCELLED or INTERRUPTED; None where it was a false alarm. Empties the
        descriptor.
        """


@dataclass(frozen=True)
class Seen:
    """The facts that the decision to stop is made from; times of the monotonic clock."""

    now: float
    began: float
    lively: float
    stream_bytes: int = 0
    free_bytes: int | None = None
    said_done: float | None = None


def verdict(limits: Limits, seen: Seen) -> Ending | None:
    """Why the program must be stopped now, None where it may go on. Pure.

    One that said that it is done owes nothing but its end: no other deadline makes it a failure.
    """
    now = seen.now
    reasons = (
        (Ending.OUTPUT_LIMIT, seen.stream_bytes > limits.max_stream_bytes),
        (Ending.DISK_FULL, _is_below(seen.free_bytes, limits.min_free_bytes)),
        (Ending.LINGERED, seen.said_done is not None and now - seen.said_done >= limits.linger_s),
        (Ending.TIMEOUT, now - seen.began >= limits.timeout_s),
        (Ending.SILENT, not seen.stream_bytes and 0 < limits.first_output_s <= now - seen.began),
        (Ending.STALLED, 0 < limits.idle_s <= now - seen.lively),
    )
    ending = next((ending for ending, is_so in reasons if is_so), None)
    late = ending in (Ending.TIMEOUT, Ending.STALLED) and seen.said_done is not None
    return Ending.LINGERED if late else ending


def _is_below(free_bytes: int | None, least: int) -> bool:
    return free_bytes is not None and free_bytes < least


def look_interval_s(idle_s: float) -> float:
    """Return how long between two looks at all descendants. Pure."""
    return min(_LOOK_S, idle_s / _LOOKS_PER_IDLE) if idle_s else _LOOK_S


def follow_interval_s(quiet_s: float) -> float:
    """Return how long until the next look for output, after so long without any. Pure."""
    return min(_FOLLOW_MOST_S, max(_FOLLOW_LEAST_S, quiet_s / 4))


class Watch:
    """The wait for a program's end, its output, the caller's wish, and the limits' deadlines."""

    def __init__(
        self, limits: Limits, followers: Followers, family: Descendants, began: float
    ) -> None:
        self._limits = limits
        self._followers = followers
        self._family = family
        self._began = self._lively = began
        self._next_look = began + look_interval_s(limits.idle_s)
        self._next_disk = began if limits.min_free_bytes else math.inf
        self._grown = began
        self._sizes: tuple[int, ...] = (0, 0)
        self._activity: frozenset[object] = frozenset()
        self._free_bytes: int | None = None
        self._said_done: float | None = None

    def note_done(self) -> None:
        """Note that the program said that it is done: from now on it lingers."""
        if self._said_done is None:
            self._said_done = time.monotonic()

    def wait_for_end(self, pid: int, stops: Stops, on_line: Callable[[Line], None]) -> Ending:
        """Return EXITED when the program ended by itself, else why it must be stopped now."""
        pidfd = os.pidfd_open(pid)
        try:
            poller = select.poll()
            for one in (pidfd, stops.fileno()):
                poller.register(one, select.POLLIN)
            while True:
                self._followers.follow(on_line)
                ending = verdict(self._limits, self._see(time.monotonic()))
                if ending is not None:
                    return ending
                ready = dict(poller.poll(self._wait_ms()))
                if pidfd in ready:
                    return Ending.EXITED
                if stops.fileno() in ready and (reason := stops.reason()) is not None:
                    return reason
        finally:
            os.close(pidfd)

    def _see(self, now: float) -> Seen:
        sizes = self._followers.sizes()
        if sizes != self._sizes:
            self._sizes, self._grown, self._lively = sizes, now, now
        if now >= self._next_disk:
            self._look_at_disk(now)
        if now >= self._next_look or now >= self._idle_until():
            self._look(now)
        return Seen(now, self._began, self._lively, max(sizes), self._free_bytes, self._said_done)

    def _look(self, now: float) -> None:
        living = self._family.living()
        if self._limits.idle_s:
            activity = frozenset(
                (one.identity, one.cpu_ticks, procfs.io_bytes(one.pid)) for one in living
            )
            if activity != self._activity:
                self._activity, self._lively = activity, now
        self._next_look = now + look_interval_s(self._limits.idle_s)

    def _look_at_disk(self, now: float) -> None:
        room = os.statvfs(self._limits.watched)
        self._free_bytes = room.f_bavail * room.f_frsize
        self._next_disk = now + _LOOK_AT_DISK_S

    def _idle_until(self) -> float:
        return self._lively + self._limits.idle_s if self._limits.idle_s else math.inf

    def _wait_ms(self) -> int:
        if self._followers.behind:
            return 0
        now = time.monotonic()
        until = min(
            now + follow_interval_s(now - self._grown),
            self._next_look,
            self._next_disk,
            self._idle_until(),
            self._began + self._limits.timeout_s,
            *([self._said_done + self._limits.linger_s] if self._said_done is not None else []),
        )
        return max(0, math.ceil((until - now) * 1000))
