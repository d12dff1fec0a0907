"""What an attempt may cost, and what it waits for where it may not begin. Pure.

A *till* is one cap and what is gone of it: what ended attempts have cost, and what those that run
may still cost. An attempt begins with an allowance: all that is left in the tills that it draws on,
and no more than one attempt may have. It is reserved before the attempt begins and settled at its
end, so that the sum of what is spent and of what may still be spent never passes a cap, however
many runners ask at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta

from agentorch.core.allowance import Admission, Allowance, Wait
from agentorch.core.states import OutcomeClass

# What is less is nothing: no call of a model is worth to be begun for it.
CENT_USD = 0.01
NEAR = 0.8
# Others have reserved what is left: they give back soon what they did not need.
LOOK_AGAIN_S = 60.0
CALLS, DAY, JOB = "calls", "day", "job"
ATTEMPT, STEP = "attempt", "step"
# The caps of one attempt: no other day helps, on_failure decides what a run into them means.
OWN = frozenset({ATTEMPT, STEP})


@dataclass(frozen=True)
class Admitted:
    """What came of asking; `near` are the words about caps that people are to hear now."""

    admission: Admission
    near: tuple[str, ...] = ()


@dataclass(frozen=True)
class Caps:
    """The server's caps, of one UTC day but for `attempt_usd`; 0, or no entry, is none."""

    day_usd: float = 0
    day_calls: int = 0
    projects_usd: Mapping[str, float] = field(default_factory=dict)
    agents_usd: Mapping[str, float] = field(default_factory=dict)
    attempt_usd: float = 0

    @property
    def named(self) -> dict[str, float]:
        """The caps of a day, by their names."""
        found = {CALLS: float(self.day_calls), DAY: self.day_usd}
        found |= {f"project:{name}": most for name, most in self.projects_usd.items()}
        found |= {f"agent:{name}": most for name, most in self.agents_usd.items()}
        return {name: most for name, most in found.items() if most}


@dataclass(frozen=True)
class Ask:
    """An attempt that is to begin, of an agent with a model behind it.

    `model` is the one that is asked for. `login` names the credential of a subscription: calls of
    it cost no dollars. `job_usd` and `step_usd` are what the job and its step allow themselves.
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
class Till:
    """A cap by its name, its amount (calls or US dollars), and what is gone of it.

    `tight`: an attempt runs that was given all that was left; its last call may pass the cap.
    """

    cap: str
    most: float
    spent: float = 0
    reserved: float = 0
    tight: bool = False

    @property
    def left(self) -> float:
        """What may still be reserved; never less than 0."""
        return max(0.0, self.most - self.spent - self.reserved)

    @property
    def least(self) -> float:
        """What has to be left for an attempt to begin."""
        return 1 if self.cap == CALLS else CENT_USD

    @property
    def is_spent(self) -> bool:
        """Whether it is used up for good."""
        return self.most - self.spent < self.least

    @property
    def is_used_up(self) -> bool:
        """Whether no attempt may begin now."""
        return self.left < self.least

    @property
    def is_near(self) -> bool:
        """Whether so much is spent that people should know."""
        return self.spent >= NEAR * self.most


def caps_of(ask: Ask, caps: Caps) -> dict[str, float]:
    """The caps that an attempt draws on, by their names."""
    mine = {CALLS, DAY, f"agent:{ask.agent}"}
    mine |= set() if ask.project is None else {f"project:{ask.project}"}
    found = {name: most for name, most in caps.named.items() if name in mine}
    if ask.job_usd is not None:
        found[JOB] = ask.job_usd
    return {name: most for name, most in found.items() if ask.login is None or name == CALLS}


def decide(ask: Ask, tills: Sequence[Till], attempt_usd: float, now: datetime) -> Admission:
    """Whether an attempt may begin that draws on these tills, and what it may cost.

    Of two tills that are used up, the one that is so for longer has the word. What is left of a
    till is one attempt's at a time: many calls, each beyond a little that was left, add up.
    """
    used_up = [till for till in tills if till.is_used_up]
    if used_up:
        return min((_wait(till, now) for till in used_up), key=_soonness)
    dollars = [(till.left, till.cap) for till in tills if till.cap != CALLS]
    if not dollars:
        return Allowance()
    # of two bounds that are the same, the first: a day's end is no failure of the step
    bounds = [*dollars, (attempt_usd or float("inf"), ATTEMPT)]
    if ask.step_usd is not None:
        bounds.append((ask.step_usd, STEP))
    usd, cap = min(bounds, key=lambda bound: bound[0])
    if any(till.tight for till in tills if till.cap == cap):
        words = f"{words_of(cap)} has {_told(cap, usd)} left, and an attempt that may need it runs"
        return Wait(OutcomeClass.BUDGET, words, _soon(now))
    return Allowance(usd, cap)


def _wait(till: Till, now: datetime) -> Wait:
    if till.cap == JOB and till.is_spent:
        return Wait(OutcomeClass.BUDGET, f"{_used_up(till)}: raise it, or end the job", None)
    if till.is_spent:
        words = f"{_used_up(till)} until the next day (UTC)"
        return Wait(OutcomeClass.BUDGET, words, next_day(now))
    words = f"{_used_up(till)}, {_told(till.cap, till.reserved)} of it by attempts that still run"
    return Wait(OutcomeClass.BUDGET, words, _soon(now))


def _soon(now: datetime) -> datetime:
    return min(now + timedelta(seconds=LOOK_AGAIN_S), next_day(now))


def _soonness(wait: Wait) -> float:
    return float("-inf") if wait.until is None else -wait.until.timestamp()


def _used_up(till: Till) -> str:
    gone = _told(till.cap, till.spent + till.reserved)
    return f"{words_of(till.cap)} is used up: {gone} of {_told(till.cap, till.most)}"


def near_words(till: Till) -> str:
    """What people are told of a till that is nearly used up."""
    spent, most = _told(till.cap, till.spent), _told(till.cap, till.most)
    return f"{words_of(till.cap)} is nearly used up: {spent} of {most} are spent"


def _told(cap: str, amount: float) -> str:
    return f"{amount:.0f} calls" if cap == CALLS else f"${amount:.2f}"


def words_of(cap: str) -> str:
    """A cap as it is told."""
    kind, _, name = cap.partition(":")
    known = {
        CALLS: "the day's number of calls (MAX_DAILY_API_CALLS)",
        DAY: "the day's budget (MAX_DAILY_COST_USD)",
        JOB: "the job's budget (policy.max_cost_usd)",
        "project": f"the budget of project {name} (PROJECT_BUDGETS)",
        "agent": f"the budget of agent {name} (AGENT_BUDGETS)",
    }
    return known[kind]


def day_of(moment: datetime) -> str:
    """The UTC day of a moment, as the ledger has it."""
    return moment.astimezone(UTC).date().isoformat()


def next_day(now: datetime) -> datetime:
    """When the next UTC day begins."""
    tomorrow = now.astimezone(UTC).date() + timedelta(days=1)
    return datetime.combine(tomorrow, time(), UTC)
