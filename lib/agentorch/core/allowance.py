"""The answer to whether an attempt may begin, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agentorch.core.states import OutcomeClass


@dataclass(frozen=True)
class Allowance:
    """An attempt may begin; `max_cost_usd` is what it may cost, None: nothing limits it.

    `cap` names what that comes from: `step`, `attempt`, `job`, `day`, `project:NAME`, `agent:NAME`.
    """

    max_cost_usd: float | None = None
    cap: str | None = None


@dataclass(frozen=True)
class Wait:
    """An attempt may not begin before `until`; None: no day will help, a human has to."""

    kind: OutcomeClass
    reason: str
    until: datetime | None


Admission = Allowance | Wait
