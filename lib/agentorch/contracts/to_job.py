"""A checked document as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agentorch.core.job import (
    WAITING_S,
    ContextStrategy,
    Expiry,
    Handoff,
    Job,
    Network,
    Policy,
    Step,
    Waiting,
)
from agentorch.core.resources import Resources
from agentorch.core.times import moment_of

Document = dict[str, Any]


def job_of(document: Document) -> Job:
    """Return the value of a complete, checked document."""
    policy = document["policy"]
    return Job(
        job_id=document["job_id"],
        created_at=document["created_at"],
        submitted_at=moment_of(document["submitted_at"]),
        goal=document["goal"],
        steps=tuple(_step_of(step) for step in document["steps"]),
        source_type=document["source"]["type"],
        project_id=document["project_id"],
        workdir=document["workdir"],
        callback_url=document["callback_url"],
        priority=document["priority"],
        tags=tuple(document["tags"]),
        metadata=document["metadata"],
        context_window=tuple(document["context_window"]),
        context_strategy=ContextStrategy(document["context_strategy"]),
        artifact_handoff=Handoff(document["artifact_handoff"]),
        policy=Policy(
            sandbox=policy["sandbox"],
            network=Network(policy["network"]),
            allowed_binaries=tuple(policy["allowed_binaries"]),
            allow_hosts=tuple(policy["allow_hosts"]),
            requires_approval=policy["requires_approval"],
            max_cost_usd=policy["max_cost_usd"],
            waiting=waiting_of(policy.get("waiting")),
            resources=Resources(**policy["resources"]),
        ),
    )


def waiting_of(document: Document | None) -> Waiting:
    """Return how long a job waits for a human, as its policy says; None: it says nothing."""
    if document is None:
        return Waiting()
    return Waiting(Expiry(document["then"]), document.get("after_sec", WAITING_S))


# A step's optional fields: the name in the document, the field of Step, how its value is made.
_STEP_FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "timeout_sec": ("timeout_s", int),
    "max_retries": ("max_retries", int),
    "retry_backoff_sec": ("retry_backoff_s", float),
    "input_artifacts": ("input_artifacts", tuple),
    "apply_patches_from": ("apply_patches_from", tuple),
    "allowed_tools": ("allowed_tools", lambda tools: None if tools is None else tuple(tools)),
    "on_failure": ("on_failure", str),
    "approve_after": ("approve_after", bool),
    "model": ("model", lambda model: model),
    "options": ("options", dict),
}


def _step_of(document: Document) -> Step:
    optional = {
        attribute: make(document[name])
        for name, (attribute, make) in _STEP_FIELDS.items()
        if name in document
    }
    return Step(
        step_id=document["step_id"],
        agent=document["agent"],
        role=document["role"],
        prompt=document["prompt"],
        **optional,
    )
