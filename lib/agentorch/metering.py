"""What the broker counted and saw, put into the outcome of the attempt that it was for. Pure.

Its figures win over the agent's own: it sees every call, and an agent that resumes a session tells
the sum of all its runs.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from agentorch.broker.client import Account
from agentorch.job import Outcome
from agentorch.states import OutcomeClass
from agentorch.times import rfc3339

# Ends that are not the provider's, whatever it said meanwhile.
OWN = frozenset(
    {OutcomeClass.SUCCESS, OutcomeClass.CANCELLED, OutcomeClass.OOM, OutcomeClass.NEEDS_HUMAN}
)
_TOKENS = ("tokens_in", "tokens_out", "tokens_cached", "tokens_reasoning")


def metered(outcome: Outcome, account: Account | None) -> Outcome:
    """The outcome with what its account says; as it is where there is no account."""
    if account is None:
        return outcome
    return _ended(replace(outcome, **_counted(outcome, account)), account)


def _counted(outcome: Outcome, account: Account) -> dict[str, Any]:
    network = {"connections": list(account.connections), "refused": list(account.refusals)}
    found: dict[str, Any] = {"network": network} if any(network.values()) else {}
    if not account.calls:
        return found
    metrics = dict(outcome.metrics) | {name: getattr(account, name) for name in _TOKENS}
    metrics["model_calls"] = account.calls
    if "cost_usd" in outcome.metrics:
        metrics["reported_cost_usd"] = outcome.metrics["cost_usd"]
    if account.unpriced_calls:
        metrics["unpriced_calls"] = account.unpriced_calls
    if account.unpriced_calls < account.calls:
        metrics["cost_usd"] = account.cost_usd
    model = outcome.model or next(iter(account.models), None)
    return {**found, "metrics": metrics, "model": model}


def _ended(outcome: Outcome, account: Account) -> Outcome:
    """The class that the broker knows better than who was refused by it."""
    end = account.end
    if end is None or outcome.kind in OWN or outcome.error in ("interrupted", "disk_full"):
        return outcome
    details: dict[str, Any] = {**outcome.details, "said": outcome.summary}
    if end.resets_at is not None:
        details["resets_at"] = rfc3339(datetime.fromtimestamp(end.resets_at, UTC))
    return replace(
        outcome, kind=OutcomeClass(end.kind), error=end.error, summary=end.words, details=details
    )
