"""What becomes of the figures of an attempt: the broker's, the agent's own, and none."""

from __future__ import annotations

from agentorch.agents.base import Endpoint
from agentorch.attempt.broker_access import BrokerAccess
from agentorch.attempt.metering import add_account, mark_unmetered
from agentorch.broker.account import Account, End
from agentorch.core.job import Outcome
from agentorch.core.results import StepResult
from agentorch.core.states import OutcomeClass, Status
from agentorch.ledger.counts import attempt_end, calls, dollars

SAID = Outcome(OutcomeClass.SUCCESS, "done", metrics={"cost_usd": 3.0, "turns": 7})
KEY = Account(providers={"openai": "OPENAI_API_KEY"}, calls=2, cost_usd=0.5)
ENDPOINT = Endpoint("openai", "http://127.0.0.1:8080/openai", "token")


def told(outcome: Outcome) -> dict[str, float]:
    """What the ledger takes from the result of this outcome."""
    result = StepResult(
        job_id="j",
        step_id="s",
        agent="a",
        role="r",
        status=Status.SUCCESS,
        outcome=OutcomeClass.SUCCESS,
        attempts=1,
        started_at="2026-03-04T05:06:07Z",
        finished_at="2026-03-04T05:06:08Z",
        summary="",
        metrics=outcome.metrics,
        credential=outcome.credential,
    )
    end = attempt_end(1, None, result)
    return {"usd": dollars(end, 0.9), "calls": calls(end, 1)}


def test_the_brokers_figures_are_the_truth() -> None:
    found = add_account(SAID, KEY, "OPENAI_API_KEY")
    assert found.metrics["reported_cost_usd"] == 3.0
    assert told(found) == {"usd": 0.5, "calls": 2}


def test_a_subscription_costs_calls() -> None:
    found = add_account(SAID, Account(), "login:claude")
    assert found.credential == "login:claude"
    assert "cost_usd" not in found.metrics
    assert told(found) == {"usd": 0, "calls": 7}


def test_of_a_lost_account_all_that_was_reserved_is_spent() -> None:
    found = add_account(mark_unmetered(Outcome(OutcomeClass.INFRA, "gone")), None, None)
    assert told(found) == {"usd": 0.9, "calls": 1}


def test_an_agent_that_asked_nobody_has_cost_nothing() -> None:
    assert told(Outcome(OutcomeClass.POLICY, "refused")) == {"usd": 0, "calls": 0}


def test_a_limit_of_the_provider_is_in_the_result() -> None:
    end = End("quota", "rate_limited", "too much", 1_800_000_000.0)
    failed = Outcome(OutcomeClass.AGENT_ERROR, "HTTP 429")
    found = add_account(failed, Account(end=end), "OPENAI_API_KEY")
    assert (found.kind, found.credential) == (OutcomeClass.QUOTA, "OPENAI_API_KEY")
    assert found.details["resets_at"].startswith("2027-01-15T08:00:00")


def test_what_an_agent_was_let_in_with() -> None:
    assert BrokerAccess(ENDPOINT).credential(KEY) == "OPENAI_API_KEY"
    assert BrokerAccess(ENDPOINT).credential(Account(providers={"openai": None})) is None
    assert BrokerAccess(ENDPOINT, login="login:codex").credential(None) == "login:codex"
    assert BrokerAccess(ENDPOINT).credential(None) is None
    assert BrokerAccess().credential(KEY) is None
