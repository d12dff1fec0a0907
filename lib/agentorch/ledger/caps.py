"""The caps that the configuration sets."""

from __future__ import annotations

from agentorch.config.settings import Settings
from agentorch.ledger.budgets import Caps


def caps_of(settings: Settings) -> Caps:
    """The server's caps."""
    return Caps(
        day_usd=settings.max_daily_cost_usd,
        day_calls=settings.max_daily_api_calls,
        projects_usd=settings.project_budgets,
        agents_usd=settings.agent_budgets,
        attempt_usd=settings.max_attempt_cost_usd,
    )
