"""One execution of a step, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from agentorch.core.job import Job, Outcome, Step

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
        """Return what a launcher calls it; neither a job's nor a step's id has a colon in it."""
        return f"{PREFIX}{self.job.job_id}:{self.step.step_id}:a{self.number}"


def identity(name: str) -> tuple[str, str, int]:
    """Return the job's id, the step's id and the number that an attempt's name is made of. Pure."""
    job_id, step_id, number = name.removeprefix(PREFIX).split(":")
    return job_id, step_id, int(number.removeprefix("a"))


class StepEnded(Exception):
    """The attempt ended before its agent ran."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.summary)
        self.outcome = outcome
