"""The outcome of an attempt whose process is gone and left no result. Pure.

`end` is attempts/N/end.json: what the recorder of its unit saw (launch/recorder.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentorch.core.errors import Exit
from agentorch.core.job import Outcome
from agentorch.core.states import OutcomeClass

MIB = 1024 * 1024
# What a result's metrics say of a unit, as the recorder names it.
USED = (
    *("cpu_s", "memory_peak_bytes", "io_read_bytes", "io_write_bytes"),
    *("tasks_peak", "oom_kills"),
)
# Told to leave (SIGINT), before it could hear that or after: the attempt is given back.
GIVEN_BACK = frozenset({("killed", "INT"), ("exited", str(Exit.INTERRUPTED.value))})


def outcome_of(end: Mapping[str, Any], timeout_s: float) -> Outcome | None:
    """Return the cause; None where the attempt was stopped from outside and is to be run again.

    A unit that is stopped and does not end in time is a `timeout` to systemd, too: the step's own
    time is what makes the difference.
    """
    how = (end["exit_code"], end["exit_status"])
    if end["service_result"] == "oom-kill" or (how == ("killed", "KILL") and end["oom_kills"]):
        outcome = Outcome(OutcomeClass.OOM, "the step was killed: out of memory", error="oom")
        return with_memory(outcome, end)
    if end["service_result"] == "timeout" and end["ran_s"] < timeout_s:
        return None
    if end["service_result"] == "timeout":
        words = f"the step was ended after {round(end['ran_s'])} s: it did not keep its time limit"
        return Outcome(OutcomeClass.TIMEOUT, words, error="timeout", details=dict(end))
    if how in GIVEN_BACK:
        return None
    return replace(lost_outcome(_words(*how)), details=dict(end))


def lost_outcome(how: str) -> Outcome:
    """Return an attempt whose process ended so, in words."""
    return Outcome(OutcomeClass.INFRA, f"left no result: {how}", error="exception")


def has_exit_code(end: Mapping[str, Any], code: Exit) -> bool:
    """Return whether the process itself left with this exit code."""
    return (end["exit_code"], end["exit_status"]) == ("exited", str(code.value))


def with_memory(outcome: Outcome, figures: Mapping[str, Any]) -> Outcome:
    """Return an `oom` outcome with the peak and the limit that the figures tell; others as they
    are.
    """
    peak, limit = figures.get("memory_peak_bytes"), figures.get("memory_max_bytes")
    if outcome.kind is not OutcomeClass.OOM or peak is None:
        return outcome
    of = "" if limit is None else f" of {limit / MIB:.1f} MiB"
    known = {"memory_peak_bytes": peak, "memory_max_bytes": limit}
    summary = f"{outcome.summary} (peak {peak / MIB:.1f} MiB{of})"
    return replace(outcome, summary=summary, details={**outcome.details, **known})


def usage_of(figures: Mapping[str, Any]) -> dict[str, float]:
    """Of what a recorder read: what was used, where that is known."""
    return {name: figures[name] for name in USED if figures.get(name) is not None}


def _words(code: str | None, status: str | None) -> str:
    if code == "exited":
        return f"its process exited with {status}"
    return f"its process was killed by SIG{status}"
