"""POST /jobs/{id}/approve and the other decisions, which do the same as the commands."""

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

# The keys of contracts/decision.schema.json that each decision accepts.
ALLOWED_KEYS: Mapping[Endpoint, frozenset[str]] = {
    Endpoint.APPROVE: frozenset({"comment", "accept", "shown"}),
    Endpoint.REJECT: frozenset({"comment", "shown"}),
    Endpoint.ANSWER: frozenset({"text", "shown"}),
    Endpoint.CANCEL: frozenset({"comment"}),
    Endpoint.RETRY: frozenset({"comment", "step"}),
    Endpoint.HOLD: frozenset({"comment"}),
    Endpoint.RELEASE: frozenset({"comment"}),
}
REQUIRED_KEYS: Mapping[Endpoint, frozenset[str]] = {Endpoint.ANSWER: frozenset({"text"})}


FUNCTIONS: Mapping[Endpoint, Callable[..., Job]] = {
    Endpoint.APPROVE: decide.approve,
    Endpoint.REJECT: decide.reject,
    Endpoint.ANSWER: decide.answer,
    Endpoint.CANCEL: decide.cancel,
    Endpoint.RETRY: decide.retry,
    Endpoint.HOLD: hold.hold,
    Endpoint.RELEASE: hold.release,
}
# Keys whose parameter has another name.
PARAMETERS = {"step": "step_id"}


def parse_decision(decision: Endpoint, content: bytes) -> Document:
    """Return the fields of a decision from a request's body; an empty body means `{}`.

    Raises Invalid with every problem. Pure.
    """
    document = parse(content) if content.strip() else {}
    problems = problems_of(document, "decision")
    if isinstance(document, dict):
        problems += misplaced_keys(decision, document)
    if problems:
        raise Invalid(problems)
    found: Document = document
    return found


def misplaced_keys(decision: Endpoint, document: Document) -> list[str]:
    """Return a problem for each key of another decision, and for each missing key. Pure."""
    others = frozenset[str]().union(*ALLOWED_KEYS.values()) - ALLOWED_KEYS[decision]
    unknown = [
        f".: {key!r} does not belong to {decision}" for key in sorted(others & set(document))
    ]
    missing = sorted(REQUIRED_KEYS.get(decision, frozenset()) - set(document))
    return unknown + [f".: {key!r} is missing" for key in missing]


def take_decision(
    queue: Queue, job_id: str, decision: Endpoint, fields: Document, by: Document
) -> Job:
    """Take the decision. Durable on return. Raises Refused, UnknownJob and TryAgain."""
    arguments = {PARAMETERS.get(name, name): value for name, value in fields.items()}
    return FUNCTIONS[decision](queue, job_id, **arguments, by=by)


def decision_answer(queue: Queue, job: Job, decision: Endpoint) -> Document:
    """Return the answer to a decision: the job, and the state that it is in now."""
    place = queue.find(job)
    return {
        "job_id": job.job_id,
        "decision": decision.value,
        "queue_state": None if place is None else place[0].value,
        "status_url": f"/jobs/{job.job_id}",
    }
