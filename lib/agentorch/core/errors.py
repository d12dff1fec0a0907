"""The failures that are somebody else's, each with the exit code it ends a command with.

Whatever is not one of these is our bug: it is never caught, prints a traceback and exits with 70.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every executable."""

    DONE = 0
    NEGATIVE = 1
    USAGE = 2
    NEEDS_HUMAN = 3
    BUG = 70
    TRY_AGAIN = 75
    CONFIGURATION = 78
    TIMED_OUT = 124
    INTERRUPTED = 130


class AgentorchError(Exception):
    """A failure with words for the user; str() is one line a problem."""

    exit_code: Exit = Exit.USAGE

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems: tuple[str, ...] = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class Invalid(AgentorchError):
    """A document was refused; every problem is named with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(*problems)


class Duplicate(AgentorchError):
    """The id of the job is taken."""


class Refused(AgentorchError):
    """A decision that can't be taken on this job in its present state."""


class UnknownJob(AgentorchError):
    """No job has this id. A question exits with 1, a decision with 2 (the command says which)."""

    exit_code = Exit.NEGATIVE


class Damaged(AgentorchError):
    """A file of ours is not as we write it: the disk lost it, or somebody changed it."""


class TryAgain(AgentorchError):
    """The state directory can't take it now: full, read-only, or busy. Nothing was acknowledged."""

    exit_code = Exit.TRY_AGAIN


class Misconfigured(AgentorchError):
    """The configuration is wrong; names the variable or the file, and what to do."""

    exit_code = Exit.CONFIGURATION
