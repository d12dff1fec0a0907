"""The rules for a job that has waited for a human for too long. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from agentorch.core.job import Expiry, Waiting

# So many waiting jobs are looked into at a time.
MOST_AT_ONCE = 1000
T = TypeVar("T")
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"))


@dataclass(frozen=True)
class Expired:
    """The end of a wait: what happens to the job, and the comment that says so."""

    then: Expiry
    comment: str


def expiry(own: Waiting, server: Waiting, since: datetime, now: datetime) -> Expired | None:
    """Return what becomes of a job that waits since then, None: it goes on waiting.

    `own` is what the job says; where it says nothing, the server's word counts.
    """
    rule = server if own.then is None else own
    waited_s = (now - since).total_seconds()
    if rule.then in (None, Expiry.WAIT) or waited_s < rule.after_s:
        return None
    says = "the server" if rule is server else "the job"
    words = (
        f"nobody decided for {duration_text(waited_s)} "
        f"({says} says {rule.then} after {rule.after_s} s)"
    )
    return Expired(Expiry(rule.then), words)


def duration_text(duration_s: float) -> str:
    """Return a length of time for people, in its largest unit: `3 days`."""
    for unit_s, name in _UNITS:
        if duration_s >= unit_s:
            return _count_text(int(duration_s // unit_s), name)
    return _count_text(int(max(0.0, duration_s)), "second")


def _count_text(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def due_this_minute(waiting: Sequence[T], now: datetime, most: int = MOST_AT_ONCE) -> Sequence[T]:
    """Return those of the waiting jobs whose turn it is this minute: all, unless there are very
    many.
    """
    turns = -(-len(waiting) // most) or 1
    turn = int(now.timestamp() // 60) % turns
    return waiting[turn * most : (turn + 1) * most]
