"""Calendar events of systemd.time(7), as systemd itself understands them: systemd-analyze(1)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from agentorch.core.errors import Invalid

ANSWER_S = 10
SYSTEM_DATA = Path("/var/lib")


def calendar_argv(expression: str, iterations: int = 1) -> list[str]:
    """Ask for the next times of a calendar event."""
    return ["systemd-analyze", "calendar", f"--iterations={iterations}", "--", expression]


def next_times(expression: str, iterations: int = 1) -> list[datetime] | None:
    """Return the next times, fewer where there are no more; None where systemd is not installed.

    Raises Invalid where it is no calendar event.
    """
    try:
        asked = subprocess.run(
            calendar_argv(expression, iterations),
            env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
        )
    except (FileNotFoundError, PermissionError):
        return None
    if asked.returncode != 0:
        raise Invalid([f"{expression!r} is no calendar event (see systemd.time(7))"])
    return list(times_in(asked.stdout))


def times_in(answer: str) -> Iterator[datetime]:
    """Yield the times in an answer of `systemd-analyze calendar`. Pure.

    Each stands there in the local zone and, where that is another, once more in UTC below.
    """
    for line in answer.splitlines():
        name, _, value = line.partition(": ")
        words = value.split()
        is_time = name.strip() in ("Next elapse", "(in UTC)") or name.strip().startswith("Iter. #")
        if is_time and len(words) == 4 and words[3] == "UTC":
            yield datetime.fromisoformat(f"{words[1]}T{words[2]}").replace(tzinfo=UTC)


def last_elapsed(timer: str, environ: Mapping[str, str]) -> datetime | None:
    """Return when a persistent timer of the user, or else of the system, elapsed last; None: nobody
    knows.

    By its stamp (systemd.timer(5)). TRIGGER_TIMER_REALTIME_USEC= of systemd 252 is always that of
    the first time since the service was loaded.
    """
    home = Path(environ.get("HOME") or "/")
    own = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    for directory in (own, SYSTEM_DATA):
        try:
            stamp_s = (directory / "systemd/timers" / f"stamp-{timer}").stat().st_mtime
        except OSError:  # there is none, or it is not ours to see
            continue
        return datetime.fromtimestamp(stamp_s, UTC)
    return None
