"""The facts that explain why a job is where it is, and the explanation, as values. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from agentorch.core.job import Expiry
from agentorch.core.states import OutcomeClass, State
from agentorch.explain.advice import Do


class Why(StrEnum):
    """What keeps a job that has not failed from going on; of one that has failed, its class or the
    code of its error is the word.
    """

    SUBMITTING = "submitting"
    QUEUED = "queued"
    NO_RUNNER = "no_runner"
    DISK_LOW = "disk_low"
    RUNNING = "running"
    RETRYING = "retrying"
    CANCELLING = "cancelling"
    OWNER_LOST = "owner_lost"
    BY_HAND = "by_hand"
    APPROVE_START = "approve_start"
    APPROVE_STEP = "approve_step"
    QUESTION = "question"
    DECIDE = "decide"
    HELD = "held"
    HELD_BY_ITSELF = "held_by_itself"
    QUOTA = "quota"
    BUDGET = "budget"
    PARKED = "parked"
    DUE = "due"
    DONE = "done"


@dataclass(frozen=True)
class SlotFacts:
    """A slot: whether its owner lives, and what it has. `is_runners`: not one of our commands'."""

    name: str
    is_alive: bool
    is_runners: bool = True
    job_id: str | None = None
    step_id: str | None = None


@dataclass(frozen=True)
class Attempted:
    """The current step, and its latest attempt; without one `number` is 0, and one that has no
    result has no `kind`.
    """

    step_id: str
    agent: str
    number: int = 0
    status: str = "pending"
    kind: OutcomeClass | None = None
    code: str | None = None
    summary: str = ""
    question: str = ""
    evidence: tuple[str, ...] = ()
    began: datetime | None = None

    @property
    def words(self) -> str:
        """Which one that is."""
        attempt = f", attempt {self.number}" if self.number else ""
        return f"step {self.step_id} ({self.agent}){attempt}"


@dataclass(frozen=True)
class Hold:
    """A job that is held back, or will be: by whom (None: by itself), when and why."""

    who: str | None
    when: datetime
    reason: str


@dataclass(frozen=True)
class Park:
    """A job that is parked until then."""

    until: datetime
    kind: str
    reason: str


@dataclass(frozen=True)
class Facts:
    """What is known of a job.

    `since`: when it began to wait for a human, or when it ended. `before`: how many are before it
    in pending/. `low`: roots of whose disks too little is free. `runs_on`: its step does, without
    an owner. `expires`: what becomes of it when nobody decides, and when. `error` is the job's;
    `ran`, how many of how many steps did; `decided`, the last decision on it, in words.
    """

    job_id: str
    state: State | None
    now: datetime
    submitted_at: datetime
    current: Attempted
    since: datetime | None = None
    before: int = 0
    slot: SlotFacts | None = None
    slots: tuple[SlotFacts, ...] = ()
    low: tuple[str, ...] = ()
    hold: Hold | None = None
    park: Park | None = None
    is_cancelled: bool = False
    runs_on: bool = False
    shown: str = ""
    expires: tuple[Expiry, datetime] | None = None
    error: tuple[str, str] | None = None
    ran: tuple[int, int] = (0, 0)
    cost_usd: float | None = None
    has_begun: bool = False
    decided: str = ""


@dataclass(frozen=True)
class Explanation:
    """The answer: `why` is one word for programs, `answer` a sentence for people."""

    job_id: str
    state: str
    why: str
    answer: str
    details: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    do: tuple[Do, ...] = ()

    def document(self) -> dict[str, Any]:
        """It as one JSON object."""
        return {
            "job_id": self.job_id,
            "state": self.state,
            "why": self.why,
            "answer": self.answer,
            "details": list(self.details),
            "evidence": list(self.evidence),
            "next": [{"command": one.command or None, "words": one.words} for one in self.do],
        }

    def lines(self) -> Iterator[str]:
        """It as lines; a command can be copied with its comment."""
        yield f"{self.job_id}: {self.state.replace('_', ' ')}: {self.answer}"
        yield from (f"  {line}" for line in self.details)
        yield from (f"  > {line}" for line in self.evidence)
        for one in self.do:
            yield f"  $ {one.command}  # {one.words}" if one.command else f"  * {one.words}"
