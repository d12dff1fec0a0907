"""The door: a document from outside becomes a job, or every problem with it is named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentorch.contracts.complete import complete
from agentorch.contracts.problems import kind
from agentorch.contracts.semantics import host_problems, semantic_problems
from agentorch.contracts.to_job import job_of
from agentorch.contracts.validate import problems_of
from agentorch.core.abilities import Abilities
from agentorch.core.errors import Invalid
from agentorch.core.job import Handoff, Job

Document = dict[str, Any]


@dataclass(frozen=True)
class ServerRules:
    """The rules of this server for a document from outside.
    allowed (`NAME`, `NAME:PORT`, `*.NAME`), and what it puts where a document is silent.
    """

    agents: Mapping[str, Abilities]
    projects: Collection[str]
    hosts: Collection[str] = ()
    source_type: str = "manual"
    handoff: Handoff = Handoff.MANUAL


def accept(document: Any, door: ServerRules, now: datetime) -> tuple[Job, Document]:
    """Return the job that a document asks for, and its normalised form for the disk.

    Raises Invalid with every problem. `now` becomes the time of submission.
    """
    if not isinstance(document, dict):
        raise Invalid([f".: expected an object, found {kind(document)}"])
    whole = complete(document, door.source_type, door.handoff, now)
    problems = [
        *problems_of(whole, "job"),
        *semantic_problems(whole, door.agents, door.projects),
        *host_problems(whole, door.hosts),
    ]
    if problems:
        raise Invalid(problems)
    return job_of(whole), whole
