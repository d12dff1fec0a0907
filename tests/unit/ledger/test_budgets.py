"""What an attempt may cost: a pure decision, walked through at random."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentorch.core.allowance import Allowance, Wait
from agentorch.core.states import OutcomeClass
from agentorch.ledger.budgets import (
    CALLS,
    CENT_USD,
    DAY,
    JOB,
    AdmissionRequest,
    Cap,
    Caps,
    applicable_limits,
    decide_admission,
    next_day_start,
    utc_day,
)

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
USD = st.floats(0, 50, allow_nan=False)
CAPS = st.sampled_from([DAY, JOB, "project:shop", "agent:claude"])
TILLS = st.lists(
    st.builds(Cap, CAPS, st.floats(0.01, 50), USD, USD), unique_by=lambda cap: cap.name
)


def ask(**fields: Any) -> AdmissionRequest:
    return AdmissionRequest(
        **{"job_id": "job-1", "step_id": "one", "attempt": 1, "agent": "claude", **fields}
    )


@given(TILLS, USD, st.none() | st.floats(0.01, 50))
def test_what_is_allowed_is_left_in_every_till(
    caps: list[Cap], attempt_usd: float, step_usd: float | None
) -> None:
    found = decide_admission(ask(step_usd=step_usd), caps, attempt_usd, NOW)
    if isinstance(found, Wait):
        assert any(cap.remaining < CENT_USD for cap in caps)
        assert found.until is None or NOW < found.until <= next_day_start(NOW)
    elif caps:
        assert found.max_cost_usd is not None
        assert found.max_cost_usd <= min(cap.remaining for cap in caps)
        assert found.max_cost_usd <= (step_usd or 50)
        assert found.max_cost_usd <= (attempt_usd or 50)
    else:
        assert found == Allowance()


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=60), st.floats(0.01, 3))
def test_no_order_of_starts_and_ends_passes_a_cap(
    moves: list[tuple[bool, float]], attempt_usd: float
) -> None:
    """Attempts begin and end in any order; each costs some part of what it was allowed."""
    most, spent, running = 1.0, 0.0, list[float]()
    for begins, part in moves:
        if begins:
            cap = Cap(DAY, most, spent, sum(running))
            found = decide_admission(ask(), [cap], attempt_usd, NOW)
            if isinstance(found, Allowance):
                assert found.max_cost_usd is not None
                running.append(found.max_cost_usd)
        elif running:
            spent += running.pop(0) * part
        assert spent + sum(running) <= most + 1e-9


BEGINS, COSTS_LESS, ENDS = (True, 0, 1.0), (False, 0, 0.8), (False, 0, 1.0)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.floats(0, 1)), max_size=60),
    st.floats(0.01, 3),
    st.floats(0.01, 1),
)
@example([*[BEGINS] * 4, COSTS_LESS, BEGINS, COSTS_LESS, BEGINS, *[ENDS] * 4], 0.25, 1.0)
def test_a_call_that_passes_a_remainder_is_the_only_one(
    moves: list[tuple[bool, int, float]], attempt_usd: float, part: float
) -> None:
    """No call costs more than an attempt may, but what is left of a cap is less than one."""
    call_usd = attempt_usd * part
    most, spent, running = 1.0, 0.0, list[Allowance]()
    for begins, which, share in moves:
        if begins:
            tight = any(one.cap == DAY for one in running)
            cap = Cap(DAY, most, spent, sum(one.max_cost_usd or 0 for one in running), tight)
            found = decide_admission(ask(), [cap], attempt_usd, NOW)
            running += [found] if isinstance(found, Allowance) else []
        elif running:
            ended = running.pop(which % len(running))
            allowed = ended.max_cost_usd or 0
            spent += allowed * share + (0 if ended.cap == "attempt" else call_usd)
        assert spent <= most + call_usd + 1e-9


@pytest.mark.parametrize(
    ("caps", "attempt_usd", "step_usd", "allowed"),
    [
        ([Cap(DAY, 20)], 5, None, Allowance(5, "attempt")),
        ([Cap(DAY, 20, 3, 14)], 5, None, Allowance(3, DAY)),
        ([Cap(DAY, 20), Cap("project:shop", 2)], 5, None, Allowance(2, "project:shop")),
        ([Cap(DAY, 20), Cap(JOB, 2, 1)], 5, None, Allowance(1, JOB)),
        ([Cap(DAY, 20)], 5, 0.5, Allowance(0.5, "step")),
        ([Cap(DAY, 20)], 0, None, Allowance(20, DAY)),
        # the day's end is no failure of the step
        ([Cap(DAY, 5)], 5, 5.0, Allowance(5, DAY)),
        # somebody has what was left then, and may pass it by a call; this is as much as any
        ([Cap(DAY, 20, 3, 3, tight=True)], 5, None, Allowance(5, "attempt")),
        ([Cap(CALLS, 10, 9)], 5, None, Allowance()),
        ([], 5, 0.5, Allowance()),
    ],
)
def test_the_least_of_all_that_is_left_is_allowed(
    caps: list[Cap], attempt_usd: float, step_usd: float | None, allowed: Allowance
) -> None:
    assert decide_admission(ask(step_usd=step_usd), caps, attempt_usd, NOW) == allowed


MIDNIGHT = datetime(2026, 3, 5, tzinfo=UTC)
SOON = NOW + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("caps", "until", "words"),
    [
        ([Cap(DAY, 1, 1)], MIDNIGHT, "the day's budget (MAX_DAILY_COST_USD) is used up: $1.00"),
        ([Cap(DAY, 1, 0.995)], MIDNIGHT, "until the next day (UTC)"),
        (
            [Cap(DAY, 1, 0.5, 0.495)],
            SOON,
            "of which $0.49 are reserved for attempts that still run",
        ),
        (
            [Cap(DAY, 1, 0.5, 0.3, tight=True)],
            SOON,
            "(MAX_DAILY_COST_USD) has $0.20 left, and a ",
        ),
        ([Cap(CALLS, 7, 7)], MIDNIGHT, "7 calls of 7 calls"),
        ([Cap(CALLS, 7, 5, 2)], SOON, "of which 2 calls are reserved"),
        ([Cap("agent:claude", 1, 1), Cap(DAY, 9, 0, 9)], MIDNIGHT, "agent claude (AGENT_BUD"),
        # no day helps the job, whatever else is used up
        ([Cap(DAY, 1, 1), Cap(JOB, 1, 1)], None, "the job's budget (policy.max_cost_usd)"),
        ([Cap(JOB, 1, 0, 1)], SOON, "the job's budget"),
    ],
)
def test_what_is_used_up_is_waited_for(caps: list[Cap], until: datetime | None, words: str) -> None:
    found = decide_admission(ask(), caps, 5, NOW)
    assert isinstance(found, Wait)
    assert (found.kind, found.until) == (OutcomeClass.BUDGET, until)
    assert words in found.reason


def test_nobody_waits_beyond_midnight_for_what_others_reserved() -> None:
    late = MIDNIGHT - timedelta(seconds=5)
    found = decide_admission(ask(), [Cap(DAY, 1, 0, 1)], 5, late)
    assert isinstance(found, Wait)
    assert found.until == MIDNIGHT


def test_an_attempt_draws_on_the_caps_that_are_its_own() -> None:
    caps = Caps(10, 7, {"shop": 5, "None": 1, "off": 0}, {"claude": 3}, 1)
    assert applicable_limits(ask(project="shop", job_usd=2.0), caps) == {
        CALLS: 7,
        DAY: 10,
        "project:shop": 5,
        "agent:claude": 3,
        JOB: 2,
    }
    assert applicable_limits(ask(agent="codex"), caps) == {CALLS: 7, DAY: 10}
    assert applicable_limits(ask(agent="codex", project="off"), Caps()) == {}


def test_a_subscription_draws_on_calls_alone() -> None:
    caps = Caps(10, 7, {"shop": 5}, {"claude": 3}, 1)
    assert applicable_limits(ask(project="shop", login="login:claude", job_usd=2.0), caps) == {
        CALLS: 7
    }


def test_a_day_is_utc() -> None:
    east = datetime.fromisoformat("2026-03-05T01:30:00+02:00")
    assert utc_day(east) == "2026-03-04"
    assert next_day_start(east) == MIDNIGHT
