"""The values that `advance` returns: what a claimed job waits for, or where it rests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agentorch.core.attempt import Attempt
from agentorch.core.states import State


@dataclass(frozen=True)
class WaitsForAttempt:
    """The job is ours and waits for an attempt to end: for the close of its step's lock."""

    attempt: Attempt


@dataclass(frozen=True)
class WaitsForTime:
    """The job is ours and waits for its next try, so many seconds from now."""

    left_s: float


@dataclass(frozen=True)
class WaitsForPerson:
    """The job waits for a decision, in awaiting_approval/ or held/: it is nobody's now."""

    state: State


@dataclass(frozen=True)
class WaitsForLimit:
    """The job waits until a limit of a provider or a budget is over, in parked/: it is nobody's."""

    until: datetime


@dataclass(frozen=True)
class Finished:
    """The job has ended, in done/ or failed/."""

    state: State


@dataclass(frozen=True)
class Left:
    """The owner leaves: the job is back in pending/, or stays in the slot for the next to adopt."""

    stays: bool


# The job is ours: `advance` is to be called again when that has come.
Waits = WaitsForAttempt | WaitsForTime
# The job is ours no more.
Rest = WaitsForPerson | WaitsForLimit | Finished | Left
