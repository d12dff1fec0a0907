"""What the end of an attempt or of a job adds to the counters. Pure.

What an agent's output tells of itself is not to be trusted: figures that are none count nothing,
and a model's name is a word of limited length (the ledger limits how many there are).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from agentorch.core.states import State, Status
from agentorch.core.times import moment_of
from agentorch.ledger import metric_families
from agentorch.ledger.metric_families import Family

# An attempt that tells more than this of anything is not believed: no counter is lost to it.
MOST = 1e15
UNKNOWN, OTHER = "unknown", "other"
INTERRUPTED = "interrupted"  # no outcome class: the pipeline never hears of it
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,63}")
SUM, ABOVE = "sum", "+Inf"
MS = 1000


@dataclass(frozen=True)
class Addition:
    """To what is added how much. `part`: of a histogram a bucket's upper bound; `sum`, `count`."""

    family: str
    labels: tuple[str, ...]
    value: float
    part: str = ""


@dataclass(frozen=True)
class AttemptEnd:
    """An attempt that has a result. `is_retry`: made because one before it failed.

    `credential` names what it was let in with, None where that is not known; `resets_at` is when a
    limit of its provider is over, as the result has it; `summary` is the result's.
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
        """When it began."""
        return self.ended_at - timedelta(seconds=self.duration_s)


@dataclass(frozen=True)
class JobEnd:
    """A job that ended, or asks a human.

    `number` counts its ends: an end that is carried out again has the same. `place` is done or
    failed, None where it asks. `taken` is how often it was taken from a dead owner since it was
    submitted or retried. `duration_s` and `waited_s` are None where it was never claimed.
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
    number: int, project: str | None, result: Mapping[str, Any], *, is_retry: bool = False
) -> AttemptEnd:
    """The end that an attempt's result.json tells of."""
    told = result.get("metrics", {})
    error = result.get("error") or {}
    code = error.get("code")
    return AttemptEnd(
        job_id=result["job_id"],
        step_id=result["step_id"],
        attempt=number,
        agent=result["agent"],
        outcome=INTERRUPTED if code == INTERRUPTED else result["outcome"],
        status=result["status"],
        ended_at=moment_of(result["finished_at"]),
        duration_s=between_s(result["started_at"], result["finished_at"]),
        project=project,
        model=model_word(result.get("model")),
        is_retry=is_retry,
        credential=result.get("credential"),
        resets_at=(error.get("details") or {}).get("resets_at"),
        summary=result["summary"],
        metrics={name: amount(value) for name, value in told.items()},
    )


def amount(told: object) -> float:
    """A figure that an agent told, 0 where it is none."""
    if not isinstance(told, int | float) or isinstance(told, bool):
        return 0
    return told if 0 <= told <= MOST else 0  # no comparison with NaN holds


def model_word(told: object) -> str:
    """A model's name as a label."""
    if not told:
        return UNKNOWN
    return str(told) if _MODEL.fullmatch(str(told)) else OTHER


def between_s(start: str, end: str) -> float:
    """Seconds between two moments; never less than 0, whatever was done to the clock."""
    return max(0.0, (moment_of(end) - moment_of(start)).total_seconds())


# ---- money ------------------------------------------------------------------------------------

# What an account's name begins with that is paid for by the month (see Outcome.credential).
LOGIN = "login:"
# A metric: the broker's count was lost, or there was never one.
UNMETERED = "unmetered"


def dollars(end: AttemptEnd, reserved_usd: float) -> float:
    """What an attempt has cost: where its calls were not counted, no less than was reserved."""
    told = end.metrics.get("cost_usd", 0)
    return max(told, reserved_usd) if end.metrics.get(UNMETERED) else told


def calls(end: AttemptEnd, reserved: int) -> int:
    """How many calls of a model an attempt made.

    Those of a login pass by the broker: its program's turns are counted, one where it tells none.
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


def of_attempt(end: AttemptEnd) -> Iterator[Addition]:
    """What an attempt's end adds."""
    yield one(metric_families.STEPS, end.status)
    yield one(metric_families.ATTEMPTS, end.agent, end.outcome, end.status)
    yield from observed(metric_families.ATTEMPT_S, end.duration_s, end.agent)
    if end.is_retry:
        yield one(metric_families.RETRIES, end.agent)
    for family, name in _BY_MODEL.items():
        yield from some(family, end.metrics.get(name, 0), end.agent, end.model)
    yield from _resources(end)


def _resources(end: AttemptEnd) -> Iterator[Addition]:
    yield from some(metric_families.CPU_S, end.metrics.get("cpu_s", 0), end.agent)
    for direction in ("read", "write"):
        moved = end.metrics.get(f"io_{direction}_bytes", 0)
        yield from some(metric_families.IO_BYTES, moved, end.agent, direction)
    if peak := end.metrics.get("memory_peak_bytes"):
        yield from observed(metric_families.MEMORY_PEAK, peak, end.agent)


# ---- jobs -------------------------------------------------------------------------------------


def of_job(end: JobEnd, taken_before: int) -> Iterator[Addition]:
    """What a job's end adds; `taken_before` is what of `taken` was counted already."""
    yield one(metric_families.JOBS, end.status)
    yield from some(metric_families.RECLAIMS, max(0, end.taken - taken_before))
    if end.number == 1 and end.waited_s is not None:
        yield from observed(metric_families.JOB_WAIT, end.waited_s)
    if end.duration_s is not None and end.status != Status.NEEDS_HUMAN:
        yield from observed(metric_families.JOB_S_SEEN, end.duration_s)
        yield Addition(metric_families.JOB_MS.name, (), round(end.duration_s * MS), SUM)
        yield Addition(metric_families.JOB_MS.name, (), 1, "count")


# ---- arithmetic -------------------------------------------------------------------------------


def one(family: Family, *labels: str) -> Addition:
    """One more."""
    return Addition(family.name, labels, 1)


def some(family: Family, value: float, *labels: str) -> Iterator[Addition]:
    """So many more, nothing where that is none."""
    if value:
        yield Addition(family.name, labels, value)


def observed(family: Family, value: float, *labels: str) -> Iterator[Addition]:
    """A value that a histogram saw: one more in its bucket, and the sum."""
    bound = next((str(float(bound)) for bound in family.buckets if value <= bound), ABOVE)
    yield Addition(family.name, labels, value, SUM)
    yield Addition(family.name, labels, 1, bound)
