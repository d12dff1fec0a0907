"""Facts of /proc and the cgroup: who descends from whom, what it used, what the kernel killed.

Sources: proc(5); cgroup-v2.rst (memory.events), cgroup-v1/memory.rst (memory.oom_control).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")

# Gone between the listing and the reading, or not ours to look at.
_UNREADABLE = (FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True)
class Process:
    """A process at the moment of the look; pid and `started` together are its identity."""

    pid: int
    parent: int
    state: str
    started: int
    threads: int
    cpu_ticks: int

    @property
    def identity(self) -> tuple[int, int]:
        return self.pid, self.started

    @property
    def has_ended(self) -> bool:
        """Return whether nothing runs any more and only its exit status waits to be read."""
        # A main thread that left before the others is a zombie too (pthread_exit(3)).
        return self.state in "ZX" and self.threads <= 1


def parse_stat(text: str) -> Process:
    """Return a line of /proc/PID/stat. The name in it may hold anything, brackets and newlines
    too.
    """
    pid = int(text[: text.index(" ")])
    fields = text[text.rindex(")") + 2 :].split()
    used = sum(int(ticks) for ticks in fields[11:15])
    return Process(pid, int(fields[1]), fields[0], int(fields[19]), int(fields[17]), used)


def process(pid: int) -> Process | None:
    """Return the process of this number, None where there is none."""
    # Plain calls and not Path: a look reads this of every process on the host.
    try:
        descriptor = os.open(f"{PROC}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return parse_stat(os.read(descriptor, 4096).decode("utf-8", "replace"))
        finally:
            os.close(descriptor)
    except _UNREADABLE:
        return None


def processes() -> Iterator[Process]:
    """Every process that can be seen, zombies included."""
    for name in os.listdir(PROC):
        if name.isdigit() and (found := process(int(name))) is not None:
            yield found


def descendants_of(
    found: Iterable[Process], root: int, spared: frozenset[tuple[int, int]]
) -> list[Process]:
    """Return those that descend from `root`, parents first, without the `spared` and theirs.
    Pure.
    """
    children: dict[int, list[Process]] = {}
    for one in found:
        children.setdefault(one.parent, []).append(one)
    family: list[Process] = []
    parents = [root]
    while parents:
        born = [one for one in children.pop(parents.pop(), []) if one.identity not in spared]
        family += born
        parents += [one.pid for one in born]
    return family


def io_bytes(pid: int) -> int:
    """Return what a process has read and written so far, pipes and sockets too; 0 where nobody
    tells.
    """
    try:
        text = (PROC / str(pid) / "io").read_text("ascii")
    except _UNREADABLE:
        return 0
    return sum(int(count) for count in re.findall(r"^[rw]char: (\d+)$", text, re.MULTILINE))


def oom_kills() -> int | None:
    """Return how often the kernel killed for memory in our cgroup; None where it doesn't say."""
    for path, pattern in _oom_counters((PROC / "self" / "cgroup").read_text("utf-8")):
        try:
            found = re.search(pattern, path.read_text("ascii"), re.MULTILINE)
        except OSError:  # not mounted here, or another hierarchy has the controller
            continue
        if found is not None:
            return int(found[1])
    return None


def _oom_counters(memberships: str) -> Iterator[tuple[Path, str]]:
    for line in memberships.splitlines():
        number, controllers, directory = line.split(":", 2)
        place = directory.lstrip("/")
        if number == "0":
            yield CGROUPS / place / "memory.events", r"^oom_kill (\d+)$"
            yield CGROUPS / "unified" / place / "memory.events", r"^oom_kill (\d+)$"
        elif "memory" in controllers.split(","):
            yield CGROUPS / "memory" / place / "memory.oom_control", r"^oom_kill (\d+)$"
