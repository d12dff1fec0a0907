"""The broker's figures, put into the outcome of the attempt that they belong to. Pure.

Its figures win over the agent's own: it sees every call, and an agent that resumes a session tells
the sum of all its runs.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from agentorch.broker.client import Account
from agentorch.core.job import Outcome
from agentorch.core.states import OutcomeClass
from agentorch.core.times import rfc3339
from agentorch.ledger import counts

# Ends that are not the provider's, whatever it said meanwhile.
OWN = frozenset(
    {OutcomeClass.SUCCESS, OutcomeClass.CANCELLED, OutcomeClass.OOM, OutcomeClass.NEEDS_HUMAN}
)
_TOKENS = ("tokens_in", "tokens_out", "tokens_cached", "tokens_reasoning")


def add_account(outcome: Outcome, account: Account | None, credential: str | None) -> Outcome:
    """Return the outcome with what its account says, and with what it was let in with.

    As it is where there is no account: see `unmetered`.
    """
    outcome = replace(outcome, credential=credential)
    if credential is not None and credential.startswith(counts.LOGIN):
        outcome = replace(outcome, metrics=_agent_metrics(outcome))
    if account is None:
        return outcome
    return _class_by_broker(replace(outcome, **_account_metrics(outcome, account)), account)


def mark_unmetered(outcome: Outcome) -> Outcome:
    """Return the outcome of an attempt whose account is lost: its cost is not known."""
    return replace(outcome, metrics={**outcome.metrics, counts.UNMETERED: 1})


def _agent_metrics(outcome: Outcome) -> dict[str, float]:
    """Return the metrics without what the agent says that it has cost: that is kept by another
    name.
    """
    metrics = dict(outcome.metrics)
    if "cost_usd" in metrics:
        metrics["reported_cost_usd"] = metrics.pop("cost_usd")
    return metrics


def _account_metrics(outcome: Outcome, account: Account) -> dict[str, Any]:
    network = {"connections": list(account.connections), "refused": list(account.refusals)}
    found: dict[str, Any] = {"network": network} if any(network.values()) else {}
    if not account.calls:
        return found
    metrics = _agent_metrics(outcome) | {name: getattr(account, name) for name in _TOKENS}
    metrics["model_calls"] = account.calls
    if account.unpriced_calls:
        metrics["unpriced_calls"] = account.unpriced_calls
    if account.unpriced_calls < account.calls:
        metrics["cost_usd"] = account.cost_usd
    model = outcome.model or next(iter(account.models), None)
    return {**found, "metrics": metrics, "model": model}


def _class_by_broker(outcome: Outcome, account: Account) -> Outcome:
    """Return the outcome with the class that the broker knows better than the agent that it
    refused.
    """
    end = account.end
    if end is None or outcome.kind in OWN or outcome.error in ("interrupted", "disk_full"):
        return outcome
    details: dict[str, Any] = {**outcome.details, "said": outcome.summary}
    if end.resets_at is not None:
        details["resets_at"] = rfc3339(datetime.fromtimestamp(end.resets_at, UTC))
    return replace(
        outcome, kind=OutcomeClass(end.kind), error=end.error, summary=end.words, details=details
    )
