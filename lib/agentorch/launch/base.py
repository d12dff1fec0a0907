"""What a launcher is: four verbs, and the name by which it knows an attempt.

The name is the identity; a launcher's own numbers are not trusted. Whether an attempt still runs
is told by the flock on steps/STEP/.lock, which its process and its sandbox hold; how it ended is
told by its result.json, which outranks whatever the launcher says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from agentorch.job import Job, Outcome, Step

PREFIX = "agentorch-step-"


@dataclass(frozen=True)
class Attempt:
    """One execution of a step; `base` is the attempt whose workspace it starts from.

    Where it goes on with what a parked attempt did: `resumes` is that one's number, and `first` is
    the attempt whose workspace the step itself started from. Else both are 0.
    """

    job: Job
    step: Step
    number: int
    base: int
    first: int = 0
    resumes: int = 0

    @property
    def name(self) -> str:
        """What a launcher calls it; neither a job's nor a step's id has a colon in it."""
        return f"{PREFIX}{self.job.job_id}:{self.step.step_id}:a{self.number}"


def identity(name: str) -> tuple[str, str, int]:
    """The job's id, the step's id and the number that an attempt's name is made of. Pure."""
    job_id, step_id, number = name.removeprefix(PREFIX).split(":")
    return job_id, step_id, int(number.removeprefix("a"))


class StepEnded(Exception):
    """The attempt ended before its agent ran."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.summary)
        self.outcome = outcome


class Busy(Exception):
    """The step's lock is taken: an earlier attempt still runs."""


class Stop(StrEnum):
    """Why an attempt is to end before its time."""

    CANCEL = "cancel"
    GIVE_BACK = "give back"


class Launcher(Protocol):
    """Starts attempts somewhere. `outlives`: they go on when their runner leaves or dies."""

    @property
    def outlives(self) -> bool: ...

    def submit(self, attempt: Attempt) -> str:
        """Starts an attempt and returns its name; the same attempt again starts nothing.

        The step's lock is taken when it returns. Raises Busy while an earlier attempt has it, and
        TryAgain where nothing can be started now, and nothing was.
        """

    def list(self) -> Mapping[str, str]:
        """The attempts it knows: name to `running`, or in words how the process ended."""

    def cancel(self, name: str, why: Stop) -> None:
        """Asks an attempt to end; it records why. No harm where it has ended."""

    def usage(self, name: str) -> Mapping[str, float]:
        """What an attempt used whose lock is free: cpu_s, and what else this launcher can say.

        Nothing of the attempt runs any more when it returns.
        """
