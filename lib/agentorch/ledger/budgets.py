"""The caps of money and calls: whether an attempt may begin, and what it may cost. Pure.

An attempt begins with an allowance: all that is left of the caps that it draws on, and no more
than one attempt may have. The allowance is reserved before the attempt begins and settled at its
end, so what is spent and what may still be spent never exceed a cap together, however many runners
ask at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta

from agentorch.core.allowance import Admission, Allowance, Wait
from agentorch.core.states import OutcomeClass

# An attempt does not begin for less: hardly any model call costs less than that.
CENT_USD = 0.01
# People are warned when this share of a cap is spent.
WARNING_SHARE = 0.8
# A cap that other attempts have reserved is looked at again this soon, because an attempt that ends
# gives back what it did not need.
RECHECK_S = 60.0
CALLS, DAY, JOB = "calls", "day", "job"
ATTEMPT, STEP = "attempt", "step"
# The caps of a single attempt. Waiting for another day does not help, so the attempt fails and the
# step's on_failure decides.
OWN_CAPS = frozenset({ATTEMPT, STEP})


@dataclass(frozen=True)
class AdmissionResult:
    """The answer to an admission request.

    `warnings` are the sentences about caps that are nearly used up, each at most once a day.
    """

    admission: Admission
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Caps:
    """The server's caps for one UTC day, and for one attempt (`attempt_usd`); 0 means no cap."""

    day_usd: float = 0
    day_calls: int = 0
    projects_usd: Mapping[str, float] = field(default_factory=dict)
    agents_usd: Mapping[str, float] = field(default_factory=dict)
    attempt_usd: float = 0

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set for a day, by the names of their caps."""
        found = {CALLS: float(self.day_calls), DAY: self.day_usd}
        found |= {f"project:{name}": most for name, most in self.projects_usd.items()}
        found |= {f"agent:{name}": most for name, most in self.agents_usd.items()}
        return {name: most for name, most in found.items() if most}


@dataclass(frozen=True)
class AdmissionRequest:
    """An attempt that is to begin, of an agent that calls a model.

    `model` is the requested model, None for the agent's default. `login` names the credential of a
    subscription, whose calls cost no dollars; None where the agent has a key. `job_usd` and
    `step_usd` are the limits that the job and the step set themselves.
    """

    job_id: str
    step_id: str
    attempt: int
    agent: str
    project: str | None = None
    model: str | None = None
    login: str | None = None
    job_usd: float | None = None
    step_usd: float | None = None


@dataclass(frozen=True)
class Cap:
    """One cap, in calls or US dollars, with what is spent and reserved of it.

    `tight` means that a running attempt was given all that was left: its last call may exceed it.
    """

    name: str
    limit: float
    spent: float = 0
    reserved: float = 0
    tight: bool = False

    @property
    def remaining(self) -> float:
        """The amount that may still be reserved; never less than 0."""
        return max(0.0, self.limit - self.spent - self.reserved)

    @property
    def minimum(self) -> float:
        """The amount that must be left for an attempt to begin."""
        return 1 if self.name == CALLS else CENT_USD

    @property
    def is_spent(self) -> bool:
        """True where it is used up for the rest of its day."""
        return self.limit - self.spent < self.minimum

    @property
    def is_used_up(self) -> bool:
        """True where no attempt may begin now."""
        return self.remaining < self.minimum

    @property
    def is_near(self) -> bool:
        """True where so much is spent that people are warned."""
        return self.spent >= WARNING_SHARE * self.limit


def applicable_limits(request: AdmissionRequest, caps: Caps) -> dict[str, float]:
    """Return the limits that an attempt draws on, by the names of their caps."""
    mine = {CALLS, DAY, f"agent:{request.agent}"}
    mine |= set() if request.project is None else {f"project:{request.project}"}
    found = {name: most for name, most in caps.limits.items() if name in mine}
    if request.job_usd is not None:
        found[JOB] = request.job_usd
    return {name: most for name, most in found.items() if request.login is None or name == CALLS}


def decide_admission(
    request: AdmissionRequest, caps: Sequence[Cap], attempt_usd: float, now: datetime
) -> Admission:
    """Return the allowance of an attempt that draws on these caps, or what it has to wait for.

    Where several caps are used up, the attempt waits for the one that is available last. What is
    left of a cap is given to one attempt at a time: each attempt may exceed its allowance by its
    last call, and with many at once these calls would add up.
    """
    used_up = [cap for cap in caps if cap.is_used_up]
    if used_up:
        return min((_wait(cap, now) for cap in used_up), key=_latest_first)
    dollars = [(cap.remaining, cap.name) for cap in caps if cap.name != CALLS]
    if not dollars:
        return Allowance()
    # min() takes the first of equal bounds: a cap of the day, which parks the job, comes before the
    # attempt's own, which fails the step
    bounds = [*dollars, (attempt_usd or float("inf"), ATTEMPT)]
    if request.step_usd is not None:
        bounds.append((request.step_usd, STEP))
    usd, name = min(bounds, key=lambda bound: bound[0])
    if any(cap.tight for cap in caps if cap.name == name):
        left = f"{cap_title(name)} has {_amount_text(name, usd)} left"
        words = f"{left}, and a running attempt may need all of it"
        return Wait(OutcomeClass.BUDGET, words, _recheck_time(now))
    return Allowance(usd, name)


def _wait(cap: Cap, now: datetime) -> Wait:
    if cap.name == JOB and cap.is_spent:
        return Wait(OutcomeClass.BUDGET, f"{_used_up_text(cap)}: raise it, or end the job", None)
    if cap.is_spent:
        words = f"{_used_up_text(cap)} until the next day (UTC)"
        return Wait(OutcomeClass.BUDGET, words, next_day_start(now))
    reserved = _amount_text(cap.name, cap.reserved)
    words = f"{_used_up_text(cap)}, of which {reserved} are reserved for attempts that still run"
    return Wait(OutcomeClass.BUDGET, words, _recheck_time(now))


def _recheck_time(now: datetime) -> datetime:
    return min(now + timedelta(seconds=RECHECK_S), next_day_start(now))


def _latest_first(wait: Wait) -> float:
    """Return the sort key of a wait; one that only a person can end (no `until`) comes first."""
    return float("-inf") if wait.until is None else -wait.until.timestamp()


def _used_up_text(cap: Cap) -> str:
    gone = _amount_text(cap.name, cap.spent + cap.reserved)
    return f"{cap_title(cap.name)} is used up: {gone} of {_amount_text(cap.name, cap.limit)}"


def warning_text(cap: Cap) -> str:
    """Return the warning about a cap that is nearly used up."""
    spent, limit = _amount_text(cap.name, cap.spent), _amount_text(cap.name, cap.limit)
    return f"{cap_title(cap.name)} is nearly used up: {spent} of {limit} are spent"


def _amount_text(cap_name: str, amount: float) -> str:
    return f"{amount:.0f} calls" if cap_name == CALLS else f"${amount:.2f}"


def cap_title(cap_name: str) -> str:
    """Return a cap as messages name it, with the setting that sets its limit."""
    kind, _, name = cap_name.partition(":")
    known = {
        CALLS: "the day's number of calls (MAX_DAILY_API_CALLS)",
        DAY: "the day's budget (MAX_DAILY_COST_USD)",
        JOB: "the job's budget (policy.max_cost_usd)",
        "project": f"the budget of project {name} (PROJECT_BUDGETS)",
        "agent": f"the budget of agent {name} (AGENT_BUDGETS)",
    }
    return known[kind]


def utc_day(moment: datetime) -> str:
    """Return the UTC day of a moment, spelled YYYY-MM-DD."""
    return moment.astimezone(UTC).date().isoformat()


def next_day_start(now: datetime) -> datetime:
    """Return the moment at which the next UTC day begins."""
    tomorrow = now.astimezone(UTC).date() + timedelta(days=1)
    return datetime.combine(tomorrow, time(), UTC)
