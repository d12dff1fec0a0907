"""What a runner and a step's process hold at most while an agent prints without end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from tests.bench.idle import children, fields
from tests.bench.measure import Figure, Goal, Options
from tests.bench.site import Site

KIB_OF_MIB = 1024
GOAL = Goal(40)


def figures(options: Options) -> Iterator[Figure]:
    """The peaks (VmHWM) with little output and with much, in lines and as one line."""
    much, little = options.size(1 << 30, 1 << 20), 1 << 20
    scripts = {
        "little": printing(little, "y"),
        "lines": printing(much, "y"),
        "one_line": f"head -c {much} /dev/zero | tr '\\0' y",
    }
    with options.scratch() as scratch:
        for name, script in scripts.items():
            site = Site(scratch / name)
            site.directory.mkdir()
            with site.runner() as pid:
                step = peak_of_step(pid, site, script)
                runner = peak_mib(pid)
            yield Figure(f"runner_memory_{name}", runner, "MiB", GOAL)
            yield Figure(f"step_memory_{name}", step, "MiB", GOAL)


def printing(count: int, word: str) -> str:
    """A script that prints so many bytes in lines."""
    return f"yes {40 * word} | head -c {count}"


def peak_of_step(pid: int, site: Site, script: str) -> float:
    """The most that any child of the runner held while it worked on a job."""
    peaks = [0.0]
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            for child in children(pid):
                # it ended: even a zombie has no memory any more
                with contextlib.suppress(FileNotFoundError, ProcessLookupError, KeyError):
                    peaks.append(peak_mib(child))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        site.work({"01": script})
    finally:
        ended.set()
        looking.join()
    return max(peaks)


def peak_mib(pid: int) -> float:
    """The most that a process ever held."""
    return int(fields(pid, "VmHWM")[0]) / KIB_OF_MIB
