"""The caps of the configuration."""

from __future__ import annotations

from agentorch.config.settings import Settings
from agentorch.ledger.budgets import Caps


def server_caps(settings: Settings) -> Caps:
    """Return the caps that the settings define."""
    return Caps(
        day_usd=settings.max_daily_cost_usd,
        day_calls=settings.max_daily_api_calls,
        projects_usd=settings.project_budgets,
        agents_usd=settings.agent_budgets,
        attempt_usd=settings.max_attempt_cost_usd,
    )
