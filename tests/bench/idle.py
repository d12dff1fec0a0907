"""What a runner that waits costs: processes, processor time, and how often it wakes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Figure, Goal, Options
from tests.bench.site import Site

PROC = Path("/proc")


def figures(options: Options) -> Iterator[Figure]:
    """All zero but the one process: a job, a signal or a death wakes it, nothing else."""
    with options.scratch() as scratch, Site(scratch).runner() as pid:
        settled(pid)
        wakeups, ticks = switches(pid), processor_ticks(pid)
        time.sleep(options.size(5, 1))
        yield Figure("idle_wakeups", switches(pid) - wakeups, "wakeups", Goal(0))
        yield Figure("idle_processor", processor_ticks(pid) - ticks, "ticks", Goal(0))
        yield Figure("idle_children", len(children(pid)), "processes", Goal(0))


def settled(pid: int) -> None:
    """Returns when it has slept for three seconds: the end of its last job is not idleness."""
    before, looks = -1, 0
    while looks < 10:
        time.sleep(0.3)
        now = switches(pid)
        looks = looks + 1 if now == before else 0
        before = now


def switches(pid: int) -> int:
    """How often the process gave up the processor by itself, or was made to (proc(5))."""
    return sum(int(value) for value in fields(pid, "voluntary_ctxt_switches"))


def fields(pid: int, *names: str) -> list[str]:
    """Values of /proc/PID/status."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return [values[name].split()[0] for name in names]


def processor_ticks(pid: int) -> int:
    """User and system time so far, in ticks of the clock (proc_pid_stat(5))."""
    after_name = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return int(after_name[11]) + int(after_name[12])


def children(pid: int) -> list[int]:
    """The processes whose parent it is."""
    text = (PROC / str(pid) / "task" / str(pid) / "children").read_text()
    return [int(word) for word in text.split()]
