"""Reservations, spending and walls in a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agentorch.core.allowance import Allowance, Wait
from agentorch.core.states import OutcomeClass
from agentorch.ledger import ledger
from agentorch.ledger.budgets import AdmissionRequest, Caps
from agentorch.ledger.money import SpendingBook
from agentorch.storage import sqlite
from agentorch.storage.paths import Roots
from tests.support.ends import attempt, job, roots_in

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)  # the day on which `attempt` ends
TODAY = "2026-03-04"
DOLLAR = Caps(day_usd=1, attempt_usd=0.3)


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[Roots]:
    yield roots_in(tmp_path)
    sqlite.KEPT.close()


def ask(number: int = 1, job_id: str = "job-00001", **fields: Any) -> AdmissionRequest:
    base = {"job_id": job_id, "step_id": "step1", "attempt": number, "agent": "codex"}
    return AdmissionRequest(**{**base, **fields})


def admitted(
    roots: Roots, one: AdmissionRequest, caps: Caps = DOLLAR, now: datetime = NOW
) -> Allowance:
    found = ledger.admit(roots, one, caps, now).admission
    assert isinstance(found, Allowance), found
    return found


def refused(roots: Roots, one: AdmissionRequest, caps: Caps = DOLLAR, now: datetime = NOW) -> Wait:
    found = ledger.admit(roots, one, caps, now).admission
    assert isinstance(found, Wait), found
    return found


def book(roots: Roots, caps: Caps = DOLLAR, day: str = TODAY) -> SpendingBook:
    return ledger.read_book(roots.state_db, caps, day, NOW)


def spent(roots: Roots, usd: float, number: int = 1, **fields: Any) -> None:
    """An attempt that has cost so much."""
    told = {"cost_usd": usd, "model_calls": 2}
    assert ledger.count_attempt(roots, attempt(number, metrics=told, **fields)) is None


# ---- reserve and settle -----------------------------------------------------------------------


def test_what_is_reserved_is_not_there_for_others(roots: Roots) -> None:
    given = [admitted(roots, ask(1, f"job-{n}")).max_cost_usd for n in range(4)]
    assert given == [0.3, 0.3, 0.3, pytest.approx(0.1)]
    wait = refused(roots, ask(1, "job-4"))
    assert wait.until == NOW + timedelta(seconds=60)
    assert book(roots).reserved_usd == pytest.approx(1)


def test_at_its_end_an_attempt_has_cost_what_it_cost(roots: Roots) -> None:
    admitted(roots, ask())
    spent(roots, 0.05, credential="OPENAI_API_KEY")
    found = book(roots)
    assert (found.spent_usd, found.spent_calls, found.reserved) == (0.05, 2, [])
    assert found.caps[0].remaining == pytest.approx(0.95)


def test_an_end_that_is_told_again_is_paid_once(roots: Roots) -> None:
    admitted(roots, ask())
    for _ in range(3):
        spent(roots, 0.05)
    assert book(roots).spent_usd == 0.05


def test_what_is_spent_holds_until_the_next_day(roots: Roots) -> None:
    spent(roots, 1.2)
    assert refused(roots, ask(2)).until == datetime(2026, 3, 5, tzinfo=UTC)
    tomorrow = NOW + timedelta(days=1)
    assert admitted(roots, ask(2), now=tomorrow).max_cost_usd == 0.3


def test_an_attempt_over_midnight_counts_on_both_days_until_it_ends(roots: Roots) -> None:
    yesterday = NOW - timedelta(hours=6)
    admitted(roots, ask(1, "job-a"), Caps(day_usd=1), yesterday)
    assert refused(roots, ask(1, "job-b"), Caps(day_usd=1)).until == NOW + timedelta(seconds=60)
    spent(roots, 0.4, job_id="job-a")
    assert book(roots).spent_usd == 0.4
    assert book(roots, day="2026-03-03").spent_usd == 0


def test_projects_and_agents_have_tills_of_their_own(roots: Roots) -> None:
    caps = Caps(projects_usd={"shop": 1}, agents_usd={"claude": 2})
    spent(roots, 1.5, project="shop")
    spent(roots, 2.5, number=2, project="site", agent="claude")
    assert "project shop" in refused(roots, ask(3, project="shop"), caps).reason
    assert "agent claude" in refused(roots, ask(3, agent="claude"), caps).reason
    assert admitted(roots, ask(3, project="site"), caps) == Allowance()


def test_calls_are_counted_and_reserved(roots: Roots) -> None:
    caps = Caps(day_calls=3)
    spent(roots, 0.0)  # two calls
    admitted(roots, ask(1, "job-a"), caps)
    assert refused(roots, ask(1, "job-b"), caps).until == NOW + timedelta(seconds=60)
    ledger.settle_lost(roots, "job-a", NOW)
    admitted(roots, ask(1, "job-b"), caps)


# ---- a job's own ------------------------------------------------------------------------------


def test_a_jobs_budget_is_that_of_all_its_attempts(roots: Roots) -> None:
    for number in (1, 2):
        assert admitted(roots, ask(number, job_usd=1.0)).max_cost_usd == 0.3
        spent(roots, 0.3, number)
    roomy = Caps(day_usd=100, attempt_usd=5)
    allowed = admitted(roots, ask(3, job_usd=1.0), roomy)
    assert allowed.cap == "job"
    assert allowed.max_cost_usd == pytest.approx(0.4)
    spent(roots, 0.5, 3)
    # not even tomorrow
    wait = refused(roots, ask(4, job_usd=1.0), roomy, NOW + timedelta(days=9))
    assert wait.until is None
    assert "$1.10 of $1.00" in wait.reason
    assert admitted(roots, ask(4, job_usd=2.0), roomy).cap == "job"


def test_a_job_that_is_forgotten_leaves_its_days(roots: Roots) -> None:
    spent(roots, 0.25)
    ledger.forget_job(roots, "job-00001")
    assert book(roots).spent_usd == 0.25
    assert admitted(roots, ask(2, job_usd=0.2), Caps()).max_cost_usd == 0.2


# ---- ends that nobody knows -------------------------------------------------------------------


def claim(roots: Roots, number: int = 1, job_id: str = "job-00001") -> None:
    path = roots.artifacts(job_id).step("step1").attempt(number).claim
    path.parent.mkdir(parents=True)
    path.touch()


@pytest.mark.parametrize("begun", [True, False])
def test_a_killed_attempt_has_cost_all_that_it_could(roots: Roots, *, begun: bool) -> None:
    admitted(roots, ask())
    if begun:
        claim(roots)
    admitted(roots, ask(2))
    found = book(roots)
    assert found.spent_usd == (0.3 if begun else 0)
    assert [one.attempt for one in found.reserved] == [2]


def test_at_the_end_of_a_job_nothing_is_reserved_for_it(roots: Roots) -> None:
    admitted(roots, ask())
    admitted(roots, ask(1, "job-other"))
    claim(roots)
    ledger.count_job(roots, job())
    found = book(roots)
    assert [one.job_id for one in found.reserved] == ["job-other"]
    assert found.spent_usd == 0.3


def test_a_lost_count_costs_what_was_reserved(roots: Roots) -> None:
    """The broker died, or the step: what the agent says of itself is the least."""
    admitted(roots, ask(1))
    ledger.count_attempt(roots, attempt(1, metrics={"unmetered": 1, "cost_usd": 0.1}))
    assert book(roots).spent_usd == 0.3
    ledger.count_attempt(roots, attempt(2, "job-2", metrics={"unmetered": 1, "cost_usd": 9}))
    assert book(roots).spent_usd == 9.3
    assert book(roots).spent_calls == 1


def test_of_a_job_without_reservations_nothing_is_written(roots: Roots) -> None:
    assert ledger.settle_lost(roots, "job-00001", NOW) is None
    assert not roots.state_db.exists()


# ---- subscriptions, prices --------------------------------------------------------------------


@pytest.mark.parametrize(("told", "calls"), [({"turns": 7}, 7), ({}, 1)])
def test_a_subscription_is_counted_in_calls(
    roots: Roots, told: dict[str, float], calls: int
) -> None:
    admitted(roots, ask(login="login:codex"))
    metrics = {**told, "reported_cost_usd": 3.0}
    ledger.count_attempt(roots, attempt(credential="login:codex", metrics=metrics))
    assert (book(roots).spent_usd, book(roots).spent_calls) == (0, calls)


def test_calls_without_a_price_are_counted(roots: Roots) -> None:
    ledger.count_attempt(roots, attempt(metrics={"model_calls": 3, "unpriced_calls": 3}))
    (one,) = book(roots).spent
    assert (one.usd, one.calls, one.unpriced_calls) == (0, 3, 3)


# ---- warnings ---------------------------------------------------------------------------------


def test_people_hear_of_four_fifths_once_a_day(roots: Roots) -> None:
    caps = Caps(day_usd=1, projects_usd={"shop": 1})
    spent(roots, 0.79, project="shop")
    assert ledger.admit(roots, ask(2, project="shop"), caps, NOW).warnings == ()
    spent(roots, 0.02, 2, project="shop")
    warnings = ledger.admit(roots, ask(3, project="shop"), caps, NOW).warnings
    assert [words.partition(" is nearly")[0] for words in warnings] == [
        "the day's budget (MAX_DAILY_COST_USD)",
        "the budget of project shop (PROJECT_BUDGETS)",
    ]
    assert "$0.81 of $1.00" in warnings[0]
    assert ledger.admit(roots, ask(4, project="shop"), caps, NOW).warnings == ()
    tomorrow = NOW + timedelta(days=1)
    spent(roots, 0.9, 5, ended_at=tomorrow)
    assert len(ledger.admit(roots, ask(6), caps, tomorrow).warnings) == 1


# ---- walls ------------------------------------------------------------------------------------

KEY = "OPENAI_API_KEY"
RESETS = "2026-03-04T07:00:00Z"
OVER = datetime(2026, 3, 4, 7, 0, 5, tzinfo=UTC)


def wall(roots: Roots, number: int, **fields: Any) -> None:
    told = {"credential": KEY, "outcome": "quota", "summary": "too much", **fields}
    ledger.count_attempt(roots, attempt(number, **told))


def test_a_wall_holds_back_all_who_use_the_credential(roots: Roots) -> None:
    for name, agent in (("job-a", "codex"), ("job-b", "openai")):
        admitted(roots, ask(1, name, agent=agent))
        told = {"agent": agent, "credential": KEY}
        ledger.count_attempt(roots, attempt(1, name, **told))
    admitted(roots, ask(2, "job-a"))
    wall(roots, 2, job_id="job-a", resets_at=RESETS)
    for one in (ask(3, "job-a"), ask(2, "job-b", agent="openai")):
        wait = refused(roots, one, Caps())
        assert (wait.kind, wait.until) == (OutcomeClass.QUOTA, OVER)
        assert wait.reason == "the usage limit of OPENAI_API_KEY is reached: too much"
    # of other models, projects and agents it is not known what they would use
    admitted(roots, ask(1, "job-c", agent="claude"), Caps())
    admitted(roots, ask(1, "job-d", project="shop"), Caps())
    assert [one.credential for one in book(roots).breakers] == [KEY]
    admitted(roots, ask(3, "job-a"), Caps(), OVER)


def test_a_login_is_known_before_its_first_use(roots: Roots) -> None:
    wall(roots, 1, credential="login:codex", resets_at=RESETS)
    assert refused(roots, ask(1, "job-x", login="login:codex"), Caps()).until == OVER


def used(roots: Roots) -> None:
    admitted(roots, ask(1))
    ledger.count_attempt(roots, attempt(1, credential=KEY))


def test_a_success_opens_what_a_wall_closed(roots: Roots) -> None:
    used(roots)
    wall(roots, 2, resets_at=RESETS)
    # it ended later, but its last answer may be older than the wall
    ends = NOW + timedelta(seconds=10)
    ledger.count_attempt(roots, attempt(3, credential=KEY, ended_at=ends, duration_s=60))
    refused(roots, ask(4))
    ledger.count_attempt(roots, attempt(4, credential=KEY, ended_at=ends, duration_s=1))
    admitted(roots, ask(5))


def test_where_nobody_says_when_it_is_longer_each_time(roots: Roots) -> None:
    used(roots)
    waits = []
    now = NOW
    for number in range(2, 6):
        # three that ran at the same time met one wall
        for more in range(3):
            wall(roots, 10 * number + more, ended_at=now, duration_s=1)
        until = refused(roots, ask(1, "job-x"), Caps(), now).until
        assert until is not None
        waits.append((until - now).total_seconds())
        now = until + timedelta(seconds=2)
    assert waits == [300, 600, 1200, 2400]


def test_a_wall_is_cleared_by_hand(roots: Roots) -> None:
    used(roots)
    wall(roots, 2, resets_at=RESETS)
    assert ledger.clear_credential(roots, KEY)
    assert not ledger.clear_credential(roots, KEY)
    admitted(roots, ask(3))


# ---- a broken ledger --------------------------------------------------------------------------


def test_a_broken_ledger_holds_back_what_draws_on_a_cap_and_nothing_else(roots: Roots) -> None:
    roots.state_db.write_bytes(b"no database at all" * 100)
    assert admitted(roots, ask(), Caps()) == Allowance()
    for caps in (DOLLAR, Caps(day_calls=5)):
        wait = refused(roots, ask(), caps)
        assert wait.until == NOW + timedelta(seconds=60)
        assert "it is unknown what is left: " in wait.reason
        assert str(roots.state_db) in wait.reason
    refused(roots, ask(job_usd=1.0), Caps())
