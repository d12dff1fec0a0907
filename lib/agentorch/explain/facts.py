"""The facts that explain why a job is where it is, and the explanation, as values. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from agentorch.core.job import Expiry
from agentorch.core.states import OutcomeClass, State
from agentorch.explain.advice import Action


class Why(StrEnum):
    """The reason why a job that has not failed does not go on, as one word for programs.

    Of a failed job the word is its outcome class, or the code of its error.
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
    """A slot, whether its owner is alive, and its job.

    A slot is not `is_runners` where a command that a person started has it.
    """

    name: str
    is_alive: bool
    is_runners: bool = True
    job_id: str | None = None
    step_id: str | None = None


@dataclass(frozen=True)
class AttemptFacts:
    """The current step and its latest attempt.

    `number` is 0 where there was no attempt; `kind` is None where it has no result.
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
    def title(self) -> str:
        """The step, its agent and the number of the attempt."""
        attempt = f", attempt {self.number}" if self.number else ""
        return f"step {self.step_id} ({self.agent}){attempt}"


@dataclass(frozen=True)
class Hold:
    """A hold on a job: by whom (None: by the runner itself), when and why."""

    who: str | None
    when: datetime
    reason: str


@dataclass(frozen=True)
class Park:
    """A job that is parked until a moment, for a class of outcome (`kind`)."""

    until: datetime
    kind: str
    reason: str


@dataclass(frozen=True)
class Facts:
    """The facts about a job.

    `since` is when it began to wait for a human, or when it ended; `jobs_ahead` counts the jobs
    before it in pending/; `low_disks` are sentences about disks with too little space. `runs_on`
    means that its step still runs although its owner is dead. `shown_hash` is the hash of what a
    person decides on; `expires` is what happens without a decision, and when. `error` is the job's
    code and message; `steps_run`, how many of how many steps ran; `last_decision` is a sentence.
    """

    job_id: str
    state: State | None
    now: datetime
    submitted_at: datetime
    current: AttemptFacts
    since: datetime | None = None
    jobs_ahead: int = 0
    slot: SlotFacts | None = None
    slots: tuple[SlotFacts, ...] = ()
    low_disks: tuple[str, ...] = ()
    hold: Hold | None = None
    park: Park | None = None
    is_cancelled: bool = False
    runs_on: bool = False
    shown_hash: str = ""
    expires: tuple[Expiry, datetime] | None = None
    error: tuple[str, str] | None = None
    steps_run: tuple[int, int] = (0, 0)
    cost_usd: float | None = None
    has_begun: bool = False
    last_decision: str = ""


@dataclass(frozen=True)
class Explanation:
    """The explanation of a job: `why` is one word for programs, `answer` a sentence for people."""

    job_id: str
    state: str
    why: str
    answer: str
    details: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the explanation as one JSON object."""
        return {
            "job_id": self.job_id,
            "state": self.state,
            "why": self.why,
            "answer": self.answer,
            "details": list(self.details),
            "evidence": list(self.evidence),
            "next": [{"command": one.command or None, "words": one.words} for one in self.actions],
        }

    def lines(self) -> Iterator[str]:
        """Yield the explanation as lines; a command can be copied together with its comment."""
        yield f"{self.job_id}: {self.state.replace('_', ' ')}: {self.answer}"
        yield from (f"  {line}" for line in self.details)
        yield from (f"  > {line}" for line in self.evidence)
        for one in self.actions:
            yield f"  $ {one.command}  # {one.words}" if one.command else f"  * {one.words}"
