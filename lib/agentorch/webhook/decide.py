"""POST /jobs/{id}/approve and its like: decisions by HTTP, as the commands take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agentorch.contracts.parse import parse
from agentorch.contracts.validate import problems_of
from agentorch.core.errors import Invalid
from agentorch.core.job import Job
from agentorch.decisions import decide, hold
from agentorch.jobqueue.jobqueue import Queue
from agentorch.storage.json_files import Document
from agentorch.webhook.routes import Endpoint

# What a decision may be told besides: keys of contracts/decision.schema.json.
TAKES: Mapping[Endpoint, frozenset[str]] = {
    Endpoint.APPROVE: frozenset({"comment", "accept", "shown"}),
    Endpoint.REJECT: frozenset({"comment", "shown"}),
    Endpoint.ANSWER: frozenset({"text", "shown"}),
    Endpoint.CANCEL: frozenset({"comment"}),
    Endpoint.RETRY: frozenset({"comment", "step"}),
    Endpoint.HOLD: frozenset({"comment"}),
    Endpoint.RELEASE: frozenset({"comment"}),
}
NEEDS: Mapping[Endpoint, frozenset[str]] = {Endpoint.ANSWER: frozenset({"text"})}


ACTS: Mapping[Endpoint, Callable[..., Job]] = {
    Endpoint.APPROVE: decide.approve,
    Endpoint.REJECT: decide.reject,
    Endpoint.ANSWER: decide.answer,
    Endpoint.CANCEL: decide.cancel,
    Endpoint.RETRY: decide.retry,
    Endpoint.HOLD: hold.hold,
    Endpoint.RELEASE: hold.release,
}
# What decide calls otherwise than we do.
NAMES = {"step": "step_id"}


def asked(decision: Endpoint, content: bytes) -> Document:
    """What a body tells of the decision; nothing is as good as `{}`.

    Raises Invalid with every problem. Pure.
    """
    document = parse(content) if content.strip() else {}
    problems = problems_of(document, "decision")
    if isinstance(document, dict):
        problems += misplaced(decision, document)
    if problems:
        raise Invalid(problems)
    found: Document = document
    return found


def misplaced(decision: Endpoint, document: Document) -> list[str]:
    """What is told of another decision, and what is missing of this one. Pure."""
    others = frozenset[str]().union(*TAKES.values()) - TAKES[decision]
    strange = [f".: {key!r} says nothing to {decision}" for key in sorted(others & set(document))]
    missing = sorted(NEEDS.get(decision, frozenset()) - set(document))
    return strange + [f".: {key!r} is missing" for key in missing]


def take(queue: Queue, job_id: str, decision: Endpoint, told: Document, by: Document) -> Job:
    """Takes the decision; durable when it returns. Raises Refused, UnknownJob and TryAgain."""
    words = {NAMES.get(name, name): value for name, value in told.items()}
    return ACTS[decision](queue, job_id, **words, by=by)


def taken(queue: Queue, job: Job, decision: Endpoint) -> Document:
    """What is said of a decision: the job, and where it is by now."""
    place = queue.find(job)
    return {
        "job_id": job.job_id,
        "decision": decision.value,
        "queue_state": None if place is None else place[0].value,
        "status_url": f"/jobs/{job.job_id}",
    }
