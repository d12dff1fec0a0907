"""A job as values: frozen, complete, already checked by contracts.

`contracts.door` makes these out of documents; behind that door nobody asks again whether a field
is there or in its bounds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from agentorch.core.resources import UNLIMITED, Resources
from agentorch.core.states import OutcomeClass

SCHEMA_VERSION = "1.0"
DEFAULT_PRIORITY = 5
MAX_TAKEN = 5
# How long a job waits for a human where it is said what then, and not when.
WAITING_S = 7 * 86400

JOB_ID = re.compile(r"(?![.-])[A-Za-z0-9._-]{8,64}")


class Handoff(StrEnum):
    """The way in which a step's work reaches the next one (CONTRACT: artifact_handoff)."""

    MANUAL = "manual"
    PATCH_FIRST = "patch_first"
    WORKSPACE_FIRST = "workspace_first"


class ContextStrategy(StrEnum):
    """The rule for how much of the conversation is kept between steps."""

    FULL = "full"
    SUMMARIZE = "summarize"
    SLIDING = "sliding"


class Network(StrEnum):
    """The network that a step may reach."""

    DENY = "deny"
    ALLOW = "allow"


class Expiry(StrEnum):
    """The end of a job for which no human has decided for too long."""

    WAIT = "wait"
    REJECT = "reject"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Waiting:
    """The time that a job waits for a human, and what then; `after_s` 0 with WAIT: for ever.

    `then` None: as the server says.
    """

    then: Expiry | None = None
    after_s: int = 0


@dataclass(frozen=True)
class Policy:
    """The job's part of the policy; it can only tighten the server's."""

    sandbox: bool = True
    network: Network = Network.DENY
    allowed_binaries: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    requires_approval: bool = False
    max_cost_usd: float | None = None
    waiting: Waiting = Waiting()
    resources: Resources = UNLIMITED


@dataclass(frozen=True)
class Step:
    """One agent's work in a job."""

    step_id: str
    agent: str
    role: str
    prompt: str
    timeout_s: int = 600
    max_retries: int = 1
    retry_backoff_s: float = 2
    input_artifacts: tuple[str, ...] = ()
    apply_patches_from: tuple[str, ...] = ()
    allowed_tools: tuple[str, ...] | None = None
    on_failure: str = "stop"
    approve_after: bool = False
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A job. `submitted_at` is the time of the queue key, set when it was accepted, UTC."""

    job_id: str
    created_at: str
    submitted_at: datetime
    goal: str
    steps: tuple[Step, ...]
    source_type: str = "manual"
    project_id: str | None = None
    workdir: str = "."
    callback_url: str | None = None
    priority: int = DEFAULT_PRIORITY
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    context_window: tuple[Mapping[str, Any], ...] = ()
    context_strategy: ContextStrategy = ContextStrategy.SLIDING
    artifact_handoff: Handoff = Handoff.MANUAL
    policy: Policy = Policy()

    @property
    def key(self) -> Key:
        """The name of the job's queue file as it was first queued."""
        return Key(self.priority, self.submitted_at, self.job_id)

    def step(self, step_id: str) -> Step:
        """Return the step of this id; KeyError where there is none."""
        for step in self.steps:
            if step.step_id == step_id:
                return step
        raise KeyError(step_id)

    def index(self, step_id: str) -> int:
        """Return the place of the step of this id; KeyError where there is none."""
        return self.steps.index(self.step(step_id))


_KEY = re.compile(r"([0-9])-(\d{8}T\d{6}\.\d{6}Z)-(" + JOB_ID.pattern + r")(?:~([1-9]))?\.json")
_STAMP = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True, order=True)
class Key:
    """`P-YYYYMMDDTHHMMSS.ffffffZ-ID[~N].json`: the name of a queue file; names sort in claim order.

    `taken` (the N) counts how often the job was taken from a dead owner.
    """

    priority: int
    submitted_at: datetime
    job_id: str
    taken: int = 0

    def __str__(self) -> str:
        again = f"~{self.taken}" if self.taken else ""
        return f"{self.priority}-{self.submitted_at.strftime(_STAMP)}-{self.job_id}{again}.json"

    @classmethod
    def parse(cls, name: str) -> Key | None:
        """Return the key that this file name spells, None where it spells none."""
        match = _KEY.fullmatch(name)
        if match is None:
            return None
        try:
            submitted_at = datetime.strptime(match[2], _STAMP).replace(tzinfo=UTC)
        except ValueError:  # the digits are not a date
            return None
        return cls(int(match[1]), submitted_at, match[3], int(match[4] or 0))


@dataclass(frozen=True)
class Verdict:
    """A reviewer's verdict; `reasons` are lines of text."""

    approved: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The outcome of an attempt, with what it left for people and for the next step.

    `error` is the code of contracts/result.schema.json, None on success. `metrics` has tokens_in,
    tokens_out (counts), cost_usd where the agent tells them, and whatever else it reports:
    tokens_in holds the cached ones (tokens_cached) too, tokens_out those of reasoning
    (tokens_reasoning). `files` are those that the agent says it changed, below the workspace;
    `network` is what it tried to reach beside its model: `connections`, `refused`. `program` is
    what was run, None where nothing was (see provenance). `credential` names what the agent was let
    in with at its provider's: a variable of a key, `login:AGENT`, or `provider:NAME`, which wants
    none; None where it is not known, or nothing was asked.
    """

    kind: OutcomeClass
    summary: str
    report: str = ""
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    session_id: str | None = None
    question: str | None = None
    model: str | None = None
    files: tuple[str, ...] = ()
    verdict: Verdict | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    program: Mapping[str, Any] | None = None
    credential: str | None = None
