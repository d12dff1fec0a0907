"""The events that a runner waits for: signals, new jobs, dead slots, decisions, ended steps.

One descriptor to poll for each source, and no clock but the delays that somebody asked for.
"""

from __future__ import annotations

import select
from pathlib import Path

from agentorch.core.job import Key
from agentorch.core.states import State
from agentorch.runner.backlog import Backlog
from agentorch.storage.listing import names_in
from agentorch.storage.paths import QueuePaths
from agentorch.system.inotify import Event, Inotify, Mask
from agentorch.system.signals import Signals
from agentorch.systemd import notify

LOCK = ".lock"
# poll(2) takes milliseconds as an int: some 24 days, and a parked job may wait longer.
LONGEST_S = 86400.0
_CHANGED = Mask.CREATE | Mask.MOVED_TO | Mask.CLOSE_WRITE


class Pulse:
    """The signs of life to the service manager, one at every wait, and waits short enough for
    it.
    """

    def __init__(self) -> None:
        self._period_s = notify.watchdog_s()

    def limit(self, timeout_s: float | None) -> float | None:
        """Return how long to wait when `timeout_s` was asked for; None: for ever."""
        if self._period_s is None:
            return timeout_s
        notify.notify("WATCHDOG=1")
        return self._period_s if timeout_s is None else min(self._period_s, timeout_s)


class SecondLooks:
    """The times at which to look at a lock again after its close.

    The kernel tells of a close (fsnotify_close) just before it drops the flock of the file
    (locks_remove_file, both in __fput): whoever is quick still finds it taken, and no other event
    will come.
    """

    DELAYS_S = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0)

    def __init__(self) -> None:
        self._left: tuple[float, ...] = ()

    def note_close(self) -> None:
        """Note that a lock was closed: a few looks are due."""
        self._left = self.DELAYS_S

    def limit(self, timeout_s: float | None) -> float | None:
        """Return how long to wait when `timeout_s` was asked for; takes one look off."""
        if not self._left:
            return timeout_s
        first, *rest = self._left
        self._left = tuple(rest)
        return first if timeout_s is None else min(first, timeout_s)


class Events:
    """The runner's sources of events, and what they brought."""

    def __init__(self, paths: QueuePaths, signals: Signals) -> None:
        self.signals = signals
        self.backlog = Backlog()
        self.slots_changed = True
        self._paths = paths
        self._inotify = Inotify()
        self._pending = self._inotify.watch(paths.state(State.PENDING), Mask.CREATE | Mask.MOVED_TO)
        self._running = self._inotify.watch(paths.running, Mask.CREATE)
        self._slots: dict[int, str] = {}
        self._looks = SecondLooks()
        self._pulse = Pulse()

    def next_pending(self) -> Key | None:
        """Return the first job to claim, as far as is known; lists pending/ when that is due."""
        while True:
            name = self.backlog.take()
            key = None if name is None else Key.parse(name)
            if key is not None:
                return key
            if name is None and not self.backlog.stale:
                return None
            if name is None:
                self.backlog.take_listing(names_in(self._paths.state(State.PENDING)))

    def nothing_pending(self) -> bool:
        """Return the last look of one who wants to leave; False: pending/ is to be listed again."""
        if any(map(Key.parse, names_in(self._paths.state(State.PENDING)))):
            self.backlog.lost_events()
            return False
        return True

    def watch_slots(self, names: list[str]) -> None:
        """Watch for the close of every slot's lock: its owner's death is an event."""
        for name in set(names) - set(self._slots.values()):
            self._slots[self._inotify.watch(self._paths.slot(name), Mask.CLOSE_WRITE)] = name

    def watch(self, directory: Path) -> int:
        """Watch a directory of the job at hand; `wait` returns when something happens there."""
        return self._inotify.watch(directory, _CHANGED)

    def forget(self, watch: int) -> None:
        """End such a watch."""
        self._inotify.forget(watch)

    def wait(self, timeout_s: float | None) -> None:
        """Wait until something happened, or so many seconds; may return for no reason."""
        timeout_s = self._pulse.limit(self._looks.limit(timeout_s))
        if timeout_s is not None:
            timeout_s = min(timeout_s, LONGEST_S)
        poll = select.poll()
        poll.register(self._inotify, select.POLLIN)
        poll.register(self.signals, select.POLLIN)
        if not poll.poll(None if timeout_s is None else int(timeout_s * 1000) + 1):
            self.slots_changed = True
        self.signals.clear()
        for event in self._inotify.read():
            self._read(event)

    def _read(self, event: Event) -> None:
        if event.mask & Mask.CLOSE_WRITE and event.name == LOCK:
            self._looks.note_close()
        if event.mask & Mask.OVERFLOW:
            self._looks.note_close()
            self.backlog.lost_events()
            self.slots_changed = True
        elif event.watch == self._pending:
            self.backlog.add(event.name)
        elif event.watch in self._slots or event.watch == self._running:
            self.slots_changed = True

    def close(self) -> None:
        """End all watches; a forked step does this too."""
        self._inotify.close()
