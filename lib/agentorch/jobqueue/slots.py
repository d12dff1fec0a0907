"""Slots: who owns a running job.

    running/SLOT/.lock      flock held by the owner for its whole life; never deleted
    running/SLOT/KEY.json   the jobs it owns

An owner is alive exactly while the lock is held: the kernel drops it at any death. Others try the
lock through a read-only descriptor, so that closing it is not an event for those who watch for
the close of the owner's.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from agentorch.core.job import Key
from agentorch.core.states import State
from agentorch.jobqueue.jobqueue import Queue
from agentorch.storage import atomic
from agentorch.storage.locks import hold_lock, lock

SLOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

# The slot of commands that move a job by themselves; its lock is held for milliseconds.
COMMANDS = "commands"
# The slot of agentorch-step on a queued job.
STEPS = "steps"
# The slots of agentorch-shell: so many can be open at a time.
SHELLS = tuple(f"shell-{number}" for number in range(1, 9))
RESERVED = frozenset({COMMANDS, STEPS, *SHELLS})


class Slot:
    """A slot whose lock we hold."""

    def __init__(self, queue: Queue, name: str, descriptor: int) -> None:
        self.queue = queue
        self.name = name
        self.descriptor = descriptor
        self.directory = queue.paths.slot(name)

    def held_keys(self) -> list[Key]:
        """Return the keys of the jobs in this slot, in claim order."""
        keys = (Key.parse(name) for name in os.listdir(self.directory))
        return sorted(key for key in keys if key is not None)

    def path(self, key: Key) -> Path:
        """Return the queue file of a job of ours."""
        return self.directory / str(key)

    def take(self, state: State, key: Key) -> bool:
        """Claims a job; False when somebody else was first. Durable when it returns."""
        return self.queue.move(self.queue.file_of(state, key), self.path(key))

    def give(self, key: Key, state: State, *, as_: Key | None = None) -> None:
        """Put a job of ours where it belongs; durable when it returns."""
        # One rename from the slot to its place: a crash before it leaves the job in the slot, whose
        # next owner reads in state.json where it belongs; after it, only the syncs can be undone.
        self.queue.move(self.path(key), self.queue.paths.file(state, as_ or key))

    def park(self, key: Key, until: datetime) -> None:
        """Put a job of ours where it lies until a time; durable when it returns."""
        self.queue.move(self.path(key), self.queue.paths.parked_file(key, until))

    def recount(self, key: Key, counted: Key) -> None:
        """Count, in one rename, that this job was taken from a dead owner.

        Not synced: a power cut is not the job's doing, and what failed would be counted twice.
        """
        os.rename(self.path(key), self.path(counted))


@contextlib.contextmanager
def hold(queue: Queue, name: str, *, wait: bool) -> Iterator[Slot | None]:
    """Hold a slot; without `wait`, None when it has a live owner."""
    directory = queue.paths.slot(name)
    with atomic.disk_trouble(directory):
        atomic.make_directory(directory)
    with hold_lock(queue.paths.slot_lock(name), wait=wait) as descriptor:
        # The flock is the proof of life: the kernel drops it at any death of its holder, SIGKILL
        # and power cut included, and at no other moment. The lock file is never deleted: of a new
        # one somebody else could be the owner.
        yield None if descriptor is None else Slot(queue, name, descriptor)


@contextlib.contextmanager
def hold_dead(queue: Queue, name: str) -> Iterator[Slot | None]:
    """Hold a slot whose owner is dead; None when it is alive or there never was one."""
    try:
        descriptor = os.open(
            queue.paths.slot_lock(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        )
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    try:
        yield Slot(queue, name, descriptor) if lock(descriptor, wait=False) else None
    finally:
        os.close(descriptor)


def live(queue: Queue) -> bool:
    """Return whether any slot seems to have an owner."""
    return bool(live_slots(queue))


def live_slots(queue: Queue) -> list[str]:
    """Return the slots that seem to have an owner; asked of /proc/locks, so that no lock is
    touched.
    """
    taken = _locked_inodes()
    return [name for name in queue.slots() if _inode(queue.paths.slot_lock(name)) in taken]


def seems_held(path: Path) -> bool:
    """Return whether somebody holds the flock of a file; asked of /proc/locks, so that it is not
    made.
    """
    return _inode(path) in _locked_inodes()


def _inode(path: Path) -> str | None:
    try:
        return str(path.stat().st_ino)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _locked_inodes() -> set[str]:
    lines = [line.split() for line in Path("/proc/locks").read_text("ascii").splitlines()]
    return {words[5].rsplit(":", 1)[-1] for words in lines if words[1] == "FLOCK"}
