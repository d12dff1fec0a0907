"""The additions to the counters at the end of an attempt or of a job. Pure.

The figures come from an agent's output, which is not trusted: anything but a sensible number counts
as 0, and a model's name is a word of limited length (the ledger limits how many names there are).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agentorch.core.results import INTERRUPTED, StepResult
from agentorch.core.states import State, Status
from agentorch.core.times import moment_of
from agentorch.ledger import metric_families
from agentorch.ledger.metric_families import Family

# A larger figure is not believed and counts as 0, so that one attempt cannot spoil a counter.
MAX_FIGURE = 1e15
UNKNOWN, OTHER = "unknown", "other"
# Not an outcome class: an interrupted attempt is run again and never reaches the pipeline.
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,63}")
SUM, ABOVE = "sum", "+Inf"
MS = 1000


@dataclass(frozen=True)
class Addition:
    """An amount that is added to one counter.

    `part` is, of a histogram, the upper bound of a bucket or `sum`; of a summary `sum` or `count`;
    otherwise it is empty.
    """

    family: str
    labels: tuple[str, ...]
    value: float
    part: str = ""


@dataclass(frozen=True)
class AttemptEnd:
    """The end of an attempt that has a result.

    `is_retry` means that it was made because an earlier one failed. `credential` names the key or
    login that it used, None where that is not known; `resets_at` is when the usage limit of its
    provider ends, as the result has it.
    """

    job_id: str
    step_id: str
    attempt: int
    agent: str
    outcome: str
    status: str
    ended_at: datetime
    duration_s: float
    project: str | None = None
    model: str = UNKNOWN
    is_retry: bool = False
    credential: str | None = None
    resets_at: str | None = None
    summary: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def began_at(self) -> datetime:
        """The moment at which it began."""
        return self.ended_at - timedelta(seconds=self.duration_s)


@dataclass(frozen=True)
class JobEnd:
    """The end of a job, or its stop to wait for a human.

    `number` counts the ends of the job: an end that is recorded again after a crash has the same
    number. `place` is done or failed, None where the job waits for a human. `taken` is how often it
    was reclaimed from a dead owner since it was submitted or retried. `duration_s` and `waited_s`
    are None where it was never claimed.
    """

    job_id: str
    number: int
    status: str
    place: State | None
    ended_at: datetime
    taken: int = 0
    duration_s: float | None = None
    waited_s: float | None = None


def attempt_end(
    number: int, project: str | None, result: StepResult, *, is_retry: bool = False
) -> AttemptEnd:
    """Return the end that an attempt's result.json describes."""
    return AttemptEnd(
        job_id=result.job_id,
        step_id=result.step_id,
        attempt=number,
        agent=result.agent,
        outcome=INTERRUPTED if result.is_interrupted else result.outcome,
        status=result.status,
        ended_at=moment_of(result.finished_at),
        duration_s=between_s(result.started_at, result.finished_at),
        project=project,
        model=model_label(result.model),
        is_retry=is_retry,
        credential=result.credential,
        resets_at=result.details.get("resets_at"),
        summary=result.summary,
        metrics={name: amount(value) for name, value in result.metrics.items()},
    )


def amount(reported: object) -> float:
    """Return a figure that an agent reported, 0 where it is not a sensible number."""
    if not isinstance(reported, int | float) or isinstance(reported, bool):
        return 0
    return reported if 0 <= reported <= MAX_FIGURE else 0  # NaN fails both comparisons


def model_label(reported: object) -> str:
    """Return a model's name as a label: `unknown` without a name, `other` for an odd one."""
    if not reported:
        return UNKNOWN
    return str(reported) if _MODEL.fullmatch(str(reported)) else OTHER


def between_s(start: str, end: str) -> float:
    """Return the seconds between two moments; 0 where the clock was set back meanwhile."""
    return max(0.0, (moment_of(end) - moment_of(start)).total_seconds())


# ---- money ------------------------------------------------------------------------------------

# The prefix of a credential that is a subscription, paid by the month (see Outcome.credential).
LOGIN = "login:"
# The metric of an attempt whose calls the broker did not count, or whose count was lost.
UNMETERED = "unmetered"


def dollars(end: AttemptEnd, reserved_usd: float) -> float:
    """Return the cost of an attempt; where its calls were not counted, at least the reservation."""
    reported_usd = end.metrics.get("cost_usd", 0)
    return max(reported_usd, reserved_usd) if end.metrics.get(UNMETERED) else reported_usd


def calls(end: AttemptEnd, reserved: int) -> int:
    """Return the number of model calls that an attempt made.

    Calls with a login do not pass through the broker, so the turns that the agent reports are
    counted instead, and one where it reports none.
    """
    if "model_calls" in end.metrics:
        return int(end.metrics["model_calls"])
    if (end.credential or "").startswith(LOGIN):
        return int(end.metrics.get("turns", 0)) or 1
    return reserved if end.metrics.get(UNMETERED) else 0


# ---- attempts ---------------------------------------------------------------------------------

_BY_MODEL = {
    metric_families.TOKENS_IN: "tokens_in",
    metric_families.TOKENS_OUT: "tokens_out",
    metric_families.TOKENS_CACHED: "tokens_cached",
    metric_families.COST_USD: "cost_usd",
    metric_families.MODEL_CALLS: "model_calls",
    metric_families.UNPRICED_CALLS: "unpriced_calls",
}


def attempt_additions(end: AttemptEnd) -> Iterator[Addition]:
    """Yield what the end of an attempt adds to the counters."""
    yield increment(metric_families.STEPS, end.status)
    yield increment(metric_families.ATTEMPTS, end.agent, end.outcome, end.status)
    yield from observe(metric_families.ATTEMPT_S, end.duration_s, end.agent)
    if end.is_retry:
        yield increment(metric_families.RETRIES, end.agent)
    for family, name in _BY_MODEL.items():
        yield from increase(family, end.metrics.get(name, 0), end.agent, end.model)
    yield from _resources(end)


def _resources(end: AttemptEnd) -> Iterator[Addition]:
    yield from increase(metric_families.CPU_S, end.metrics.get("cpu_s", 0), end.agent)
    for direction in ("read", "write"):
        moved = end.metrics.get(f"io_{direction}_bytes", 0)
        yield from increase(metric_families.IO_BYTES, moved, end.agent, direction)
    if peak := end.metrics.get("memory_peak_bytes"):
        yield from observe(metric_families.MEMORY_PEAK, peak, end.agent)


# ---- jobs -------------------------------------------------------------------------------------


def job_additions(end: JobEnd, taken_before: int) -> Iterator[Addition]:
    """Yield what the end of a job adds; `taken_before` reclaims were counted at an earlier end."""
    yield increment(metric_families.JOBS, end.status)
    yield from increase(metric_families.RECLAIMS, max(0, end.taken - taken_before))
    if end.number == 1 and end.waited_s is not None:
        yield from observe(metric_families.JOB_WAIT, end.waited_s)
    if end.duration_s is not None and end.status != Status.NEEDS_HUMAN:
        yield from observe(metric_families.JOB_DURATION, end.duration_s)
        yield Addition(metric_families.JOB_MS.name, (), round(end.duration_s * MS), SUM)
        yield Addition(metric_families.JOB_MS.name, (), 1, "count")


# ---- arithmetic -------------------------------------------------------------------------------


def increment(family: Family, *labels: str) -> Addition:
    """Return the addition of 1 to a counter."""
    return Addition(family.name, labels, 1)


def increase(family: Family, value: float, *labels: str) -> Iterator[Addition]:
    """Yield the addition of a value to a counter; nothing where it is 0."""
    if value:
        yield Addition(family.name, labels, value)


def observe(family: Family, value: float, *labels: str) -> Iterator[Addition]:
    """Yield what one observation adds to a histogram: its value to the sum, 1 to its bucket."""
    bound = next((str(float(bound)) for bound in family.buckets if value <= bound), ABOVE)
    yield Addition(family.name, labels, value, SUM)
    yield Addition(family.name, labels, 1, bound)
