"""The outcome that the end of a process alone shows, the same for every agent."""

from __future__ import annotations

import signal

from agentorch.core.job import Outcome
from agentorch.core.process_end import Ending, Exit
from agentorch.core.states import OutcomeClass

_WATCHED: dict[Ending, tuple[OutcomeClass, str, str]] = {
    Ending.TIMEOUT: (OutcomeClass.TIMEOUT, "timeout", "was stopped after {seconds} s: time limit"),
    Ending.STALLED: (
        OutcomeClass.STALLED,
        "stalled",
        "was stopped after {seconds} s: no output, CPU time or I/O any more",
    ),
    Ending.SILENT: (OutcomeClass.STALLED, "no_output", "was stopped after {seconds} s: no output"),
    Ending.CANCELLED: (OutcomeClass.CANCELLED, "cancelled", "was cancelled after {seconds} s"),
    Ending.INTERRUPTED: (
        OutcomeClass.INFRA,
        "interrupted",
        "was interrupted after {seconds} s, to be started again",
    ),
    Ending.DISK_FULL: (
        OutcomeClass.INFRA,
        "disk_full",
        "was stopped after {seconds} s: disk nearly full",
    ),
    Ending.OUTPUT_LIMIT: (
        OutcomeClass.AGENT_ERROR,
        "output_limit",
        "was stopped after {seconds} s: printed more than is kept",
    ),
}
# sh(1), POSIX 2.8.2: found but not executable, and not found.
_NOT_RUN = {126: "can't be executed", 127: "was not found"}


def outcome_of_exit(exit_: Exit, program: str = "the command") -> Outcome | None:
    """Return what the run came to whatever it printed; None where its exit code or its output
    decide.

    `program` names in words what was run.
    """
    if exit_.oom:
        return Outcome(OutcomeClass.OOM, f"{program} was killed: out of memory", error="oom")
    if exit_.ending in _WATCHED:
        kind, code, words = _WATCHED[exit_.ending]
        summary = f"{program} {words.format(seconds=round(exit_.duration_s))}"
        return Outcome(kind, summary, error=code, details=details(exit_))
    if exit_.ending is Ending.LINGERED:  # the signal was ours, and it had done its work
        return None
    if exit_.signal is not None:
        return _nonzero(exit_, f"{program} was killed by {signal_name(exit_.signal)}")
    if exit_.code in _NOT_RUN:
        return _nonzero(exit_, f"{program} {_NOT_RUN[exit_.code]} (exit code {exit_.code})")
    return None


def left_well(exit_: Exit) -> bool:
    """Return whether the process itself ended as one that has nothing to complain about."""
    return exit_.ending is Ending.LINGERED or (exit_.ending is Ending.EXITED and exit_.code == 0)


def details(exit_: Exit) -> dict[str, int | str | None]:
    """Return how the process ended, for the result's error."""
    return {"ending": exit_.ending.value, "exit_code": exit_.code, "signal": exit_.signal}


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; real-time signals have numbers only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _nonzero(exit_: Exit, summary: str) -> Outcome:
    kind = OutcomeClass.AGENT_ERROR
    return Outcome(kind, summary, error="agent_exit_nonzero", details=details(exit_))
