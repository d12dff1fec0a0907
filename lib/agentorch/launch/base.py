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


@dataclass(frozen=True)
class Attempt:
    """One execution of a step; `base` is the attempt whose workspace it starts from."""

    job: Job
    step: Step
    number: int
    base: int

    @property
    def name(self) -> str:
        """What a launcher calls it."""
        return f"agentorch-step:{self.job.job_id}:{self.step.step_id}:a{self.number}"


class StepEnded(Exception):
    """The attempt ended before its agent ran."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.summary)
        self.outcome = outcome


class Stop(StrEnum):
    """Why an attempt is to end before its time."""

    CANCEL = "cancel"
    GIVE_BACK = "give back"


class Launcher(Protocol):
    """Starts attempts somewhere."""

    def submit(self, attempt: Attempt) -> str:
        """Starts an attempt and returns its name; the same attempt again starts nothing."""

    def list(self) -> Mapping[str, str]:
        """The attempts it knows: name to `running`, or in words how the process ended."""

    def cancel(self, name: str, why: Stop) -> None:
        """Asks an attempt to end; it records why. No harm where it has ended."""

    def usage(self, name: str) -> Mapping[str, float]:
        """What an attempt used whose lock is free: cpu_s, and what else this launcher can say."""
