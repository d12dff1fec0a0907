"""Every system call that touches the state, as a place where something goes wrong.

strace(1) without -f follows one process, so a `Point` is the same call in every run: the N-th of
its name since the start of the program. A signal that is injected there comes before the call.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.crash_programs import Ended, Site

TRACED = (
    *("rename", "link", "unlink", "mkdir", "rmdir"),
    *("fsync", "ftruncate", "write", "openat", "flock"),
    *("pwrite64", "fdatasync"),  # SQLite's
)

# with -y a descriptor is 5</its/path>
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)")


@dataclass(frozen=True)
class Point:
    """The `ordinal`-th `name` call of a program; `line` is what strace showed of it."""

    name: str
    ordinal: int
    line: str = field(compare=False, default="")

    def __str__(self) -> str:
        return f"{self.name}#{self.ordinal} {self.line}"


def trace_argv(log: Path) -> list[str]:
    """strace in front of a program, to learn what it calls."""
    return ["strace", "-y", "-o", str(log), "-e", f"trace={','.join(TRACED)}", "-s", "256"]


def inject_argv(point: Point, what: str, log: Path | str = "/dev/null") -> list[str]:
    """strace in front of a program, to let something happen at a point.

    `what` as strace has it: `signal=SIGKILL`, `error=ENOSPC`. (Its --seccomp-bpf would make it
    ignore SIGKILL.)
    """
    return [
        *("strace", "-y", "-o", str(log)),
        *("-e", f"trace={point.name}"),
        *("-e", f"inject={point.name}:{what}:when={point.ordinal}"),
    ]


def points_of(trace: str, state: str) -> Iterator[Point]:
    """The calls of a trace that change something below `state`, or answer after that. Pure."""
    counted: Counter[str] = Counter()
    touched = False
    for line in trace.splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        counted[call["name"]] += 1
        ours = state in line
        touched = touched or ours
        if (ours and _changes(call["name"], line)) or (touched and line.startswith("write(1<")):
            yield Point(call["name"], counted[call["name"]], line[:160])


def _changes(name: str, line: str) -> bool:
    if name == "mkdir":
        return "= -1 EEXIST" not in line
    return name != "openat" or "O_CREAT" in line


def points(site: Site, name: str, *arguments: str, stdin: str = "") -> tuple[list[Point], Ended]:
    """Runs a program once under a plain trace: the points of it, and how it ended."""
    log = site.top / "trace"
    ended = site.run(name, *arguments, stdin=stdin, under=trace_argv(log))
    found = list(points_of(log.read_text("utf-8", "replace"), str(site.state_directory)))
    return found, ended
