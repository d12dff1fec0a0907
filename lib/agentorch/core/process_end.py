"""The end of a process, and the lines that it printed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Ending(StrEnum):
    """Why the agent's process is no longer there, as its watcher saw it.

    LINGERED: it had said that it was done, and was ended because it did not leave. SILENT: it had
    printed nothing at all by the time that its adapter gives it.
    """

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMEOUT = "timeout"
    STALLED = "stalled"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    DISK_FULL = "disk_full"
    LINGERED = "lingered"
    SILENT = "silent"
    OUTPUT_LIMIT = "output_limit"


@dataclass(frozen=True)
class Exit:
    """The end of the agent's process. `code` is its exit code, None where a signal ended it."""

    ending: Ending
    code: int | None
    signal: int | None
    duration_s: float
    oom: bool = False


@dataclass(frozen=True)
class Line:
    """A line that the agent printed, without its newline, decoded (invalid bytes replaced).

    `cut` says that the line was longer than what is kept of one.
    """

    stream: str
    text: str
    cut: bool = False
