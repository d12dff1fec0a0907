"""The recorder of a step's unit: how it ended, and what its control group used.

The unit runs a copy of this file (ExecStopPost=, `python3 -I -S`): the package may be upgraded
while the step runs, so nothing of the library is imported. It runs in the unit's control group,
when all else in it is gone. The library reads the same figures with it from inside.

Sources: systemd.exec(5), $SERVICE_RESULT; cgroup-v2.rst.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time

Figures = dict[str, float | int | None]

TOPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
# Of a figure: its file in the control group, and what stands before the number.
FIGURES = {
    "memory_peak_bytes": ("memory.peak", ""),
    "memory_max_bytes": ("memory.max", ""),
    "io_read_bytes": ("io.stat", r"\brbytes="),
    "io_write_bytes": ("io.stat", r"\bwbytes="),
    "tasks_peak": ("pids.peak", ""),
    "oom_kills": ("memory.events", r"^oom_kill "),
}


def figures(top: str | None = None) -> Figures:
    """Return what our control group used; a figure that kernel or systemd can't tell is None."""
    directory = group() if top is None else top
    microseconds = _total(directory, "cpu.stat", r"^usage_usec ")
    cpu_s = None if microseconds is None else microseconds / 1e6
    return {
        "cpu_s": cpu_s,
        **{name: _total(directory, *where) for name, where in FIGURES.items()},
    }


def group() -> str | None:
    """Return the directory of our control group; None where there is no unified hierarchy."""
    for line in _read("/proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            places = (top + line[3:] for top in reversed(TOPS))
            return next((place for place in places if os.path.isdir(place)), None)
    return None


def _total(directory: str | None, name: str, before: str) -> int | None:
    """Return the sum of the numbers in a file (io.stat has a line a device); None where none is."""
    text = "" if directory is None else _read(os.path.join(directory, name))
    found = re.findall(before + r"(\d+)\b", text, re.MULTILINE)
    return sum(map(int, found)) if found else None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # no such controller here, or no such hierarchy
        return ""


def end(claim: str) -> dict[str, object]:
    """Return how the unit ended, as systemd tells its ExecStopPost=. `ran_s` is since the claim."""
    told = {name: os.environ.get(name.upper()) for name in ("service_result", "exit_code")}
    ran_s = round(time.time() - os.stat(claim).st_mtime, 3)
    status = os.environ.get("EXIT_STATUS")
    return {**told, "exit_status": status, "ran_s": ran_s, **figures()}


def record(path: str, document: dict[str, object]) -> None:
    """Put a document where none is yet, whole and durable."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.urandom(6).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(descriptor)
    try:
        os.link(temporary, path)
    except FileExistsError:  # of the first start of this attempt
        return
    finally:
        os.unlink(temporary)
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(top)
    os.close(top)


def main(claim: str, path: str) -> None:
    """Record the end of an attempt; of one that was never claimed, nothing began."""
    if os.path.exists(claim):
        record(path, end(claim))


if __name__ == "__main__":
    main(*sys.argv[1:])
