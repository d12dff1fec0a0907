"""What of our layer is in memory while a vendor's CLI works, as its proportional share (PSS).

All that descends from the runner counts but the agent itself: the step's process, its broker, the
sandbox's two processes, the relay. What they share with the runner or each other is parted.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from statistics import median

from agentorch.attempt.broker_access import relay_program
from tests.bench.idle import PROC, children
from tests.bench.measure import Figure, Goal, Options
from tests.bench.vendors import bench, names, ready

KIB_OF_MIB = 1024
# A CLI of 200 to 600 MB is what a step is for; this is what it pays for us.
GOAL = Goal(40)
GONE = (FileNotFoundError, ProcessLookupError)
Shares = Mapping[str, float]


def figures(options: Options) -> Iterator[Figure]:
    """The most that was seen in a run, the median of some runs; and its parts."""
    with (
        ready(options).scratch() as scratch,
        bench(scratch, before_s=0.3) as here,
        here.site().runner() as runner,
    ):
        for name in names(options):
            job = here.job(name)
            if not options.quick:
                job()  # the first one tries the agent before
            seen = [most(runner, job) for _ in range(options.size(3, 1))]
            yield Figure(f"{name}_memory", median(map(total, seen)), "MiB PSS", GOAL)
            for part in ("step", "broker", "sandbox", "relay"):
                yield Figure(f"{name}_memory_{part}", median(one[part] for one in seen), "MiB PSS")


def total(shares: Shares) -> float:
    return sum(shares.values())


def most(runner: int, work: Callable[[], object]) -> Shares:
    """The shares at the moment when they were most, of those at which the agent was there."""
    seen: list[Shares] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            with contextlib.suppress(*GONE):  # one of them has just ended
                seen.extend(shares(runner))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        work()
    finally:
        ended.set()
        looking.join()
    return max(seen, key=total)


def shares(runner: int) -> Iterator[Shares]:
    """What each part holds now; nothing before the agent is there."""
    found = {"step": 0.0, "broker": 0.0, "sandbox": 0.0, "relay": 0.0}
    agents = 0
    waiting = [(child, "step") for child in children(runner)]
    while waiting:
        pid, part = waiting.pop()
        found[part] += share_mib(pid)
        below = children(pid)
        if part == "relay":
            agents += len(below)
        else:
            waiting += [(child, part_of(child)) for child in below]
    if agents:
        yield found


def part_of(pid: int) -> str:
    """What a process below the step is."""
    words = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    if str(relay_program()).encode() in words and not words[0].endswith(b"bwrap"):
        return "relay"
    return "broker" if b"--grants" in words else "sandbox"


def share_mib(pid: int) -> float:
    """The proportional share of a process (proc_pid_smaps_rollup(5))."""
    text = (PROC / str(pid) / "smaps_rollup").read_text()
    found = re.search(r"^Pss: +(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) / KIB_OF_MIB if found else 0
