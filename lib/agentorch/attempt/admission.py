"""The admission of an attempt: the question to the ledger's caps, and their answer.

An agent with a model behind it, run for real, costs money and meets its provider's limits; one that
is simulated, a command or a script does neither, and is never held back for either.
"""

from __future__ import annotations

from datetime import datetime

from agentorch.agents.base import Agent
from agentorch.agents.registry import Registry
from agentorch.attempt.broker_access import model_of
from agentorch.config.settings import Settings
from agentorch.core.allowance import Allowance
from agentorch.core.attempt import Attempt
from agentorch.core.errors import Invalid, Misconfigured
from agentorch.ledger import ledger
from agentorch.ledger.budgets import AdmissionRequest, AdmissionResult
from agentorch.ledger.caps import server_caps
from agentorch.ledger.counts import LOGIN
from agentorch.preflight.credentials import credential


def admit(settings: Settings, agents: Registry, attempt: Attempt, now: datetime) -> AdmissionResult:
    """Return whether an attempt may begin, and what it may cost; that is reserved then, durably.

    Raises TryAgain where the disk can't take it now.
    """
    ask = ask_of(settings, agents, attempt)
    if ask is None:
        return AdmissionResult(Allowance())
    return ledger.admit(settings.roots, ask, server_caps(settings), now)


def ask_of(settings: Settings, agents: Registry, attempt: Attempt) -> AdmissionRequest | None:
    """Return what an attempt asks; None where it can't cost anything.

    What is wrong with an agent is no matter of money: its attempt says it.
    """
    if not settings.real_cli:
        return None
    try:
        agent = agents.get(attempt.step.agent)
    except (Invalid, Misconfigured):
        return None
    model = model_of(settings, attempt)
    provider = agent.provider(model)
    if provider is None:
        return None
    step_usd = attempt.step.options.get("max_cost_usd")
    return AdmissionRequest(
        job_id=attempt.job.job_id,
        step_id=attempt.step.step_id,
        attempt=attempt.number,
        agent=attempt.step.agent,
        project=attempt.job.project_id,
        model=model,
        login=_login(settings, agent, provider, attempt.job.project_id),
        job_usd=attempt.job.policy.max_cost_usd,
        step_usd=None if step_usd is None else float(step_usd),
    )


def _login(settings: Settings, agent: Agent, provider: str, project_id: str | None) -> str | None:
    """Return the login that the agent will use, None where it has a key or nobody can tell."""
    if agent.capabilities is None:
        return None
    try:
        found = credential(settings, agent.name, agent.capabilities, provider, project_id)
    except Misconfigured:  # its attempt says it
        return None
    return f"{LOGIN}{agent.name}" if found.is_login else None
