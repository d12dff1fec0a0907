"""The minimal form made whole: defaults, a new id, the default pipeline. Pure but for the id."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from agentorch.core.job import DEFAULT_PRIORITY, SCHEMA_VERSION, ContextStrategy, Handoff
from agentorch.core.times import rfc3339

Document = dict[str, Any]


def complete(document: Document, source_type: str, handoff: Handoff, now: datetime) -> Document:
    """Return the document with what the minimal form leaves out; what is there stays as it is."""
    goal = document.get("goal")
    defaults: Document = {
        "schema_version": SCHEMA_VERSION,
        "job_id": new_id(now),
        "created_at": rfc3339(now),
        "source": {"type": source_type, "meta": {}},
        "project_id": None,
        "workdir": ".",
        "callback_url": None,
        "priority": DEFAULT_PRIORITY,
        "tags": [],
        "metadata": {},
        "context_window": [],
        "context_strategy": ContextStrategy.SLIDING.value,
        "artifact_handoff": handoff.value,
    }
    complete = {**defaults, **document, "submitted_at": rfc3339(now)}
    if not complete.get("steps") and complete.get("steps") in (None, []):
        complete["steps"] = default_steps(goal if isinstance(goal, str) else "")
    policy = complete.get("policy")
    if policy is None:
        complete["policy"] = dict(_POLICY)
    elif isinstance(policy, dict):
        complete["policy"] = {**_POLICY, **policy}
    return complete


_POLICY: Document = {
    "sandbox": True,
    "network": "deny",
    "allowed_binaries": [],
    "allow_hosts": [],
    "requires_approval": False,
    "max_cost_usd": None,
    "resources": {},
}

_PLAN, _IMPLEMENT, _REVIEW = "01_plan", "02_implement", "03_review"


def default_steps(goal: str) -> list[Document]:
    """Return the default pipeline: plan, implement, review."""
    plan = f"steps/{_PLAN}/report.md"
    work = f"steps/{_IMPLEMENT}"
    return [
        {
            "step_id": _PLAN,
            "agent": "opencode",
            "role": "planner",
            "prompt": f"Read the project and plan the change. Do not edit files.\n\nGoal: {goal}",
            "timeout_sec": 120,
            "max_retries": 1,
        },
        {
            "step_id": _IMPLEMENT,
            "agent": "codex",
            "role": "implementer",
            "prompt": f"Follow the plan and make the change in the workspace.\n\nGoal: {goal}",
            "timeout_sec": 300,
            "max_retries": 1,
            "input_artifacts": [plan],
        },
        {
            "step_id": _REVIEW,
            "agent": "claude",
            "role": "reviewer",
            "prompt": f"Review the change: is it right, safe and whole?\n\nGoal: {goal}",
            "timeout_sec": 180,
            "max_retries": 1,
            "input_artifacts": [plan, f"{work}/report.md", f"{work}/patch.diff"],
        },
    ]


def new_id(now: datetime) -> str:
    """Return a UUIDv7 (RFC 9562, section 5.7) of this time as 32 hex digits: ids sort by their
    time.
    """
    milliseconds = int(now.timestamp() * 1000) & (1 << 48) - 1
    chance = int.from_bytes(os.urandom(10), "big")
    below_version = (now.microsecond % 1000) << 2 | chance >> 78
    variant = 0b10 << 62 | chance & (1 << 62) - 1
    return f"{milliseconds << 80 | 7 << 76 | (below_version & 0xFFF) << 64 | variant:032x}"
