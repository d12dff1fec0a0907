"""POST /webhook: a document becomes a job; what is answered with 200 survives a power cut."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from agentorch.contracts.accept import Document, accept
from agentorch.contracts.parse import parse
from agentorch.core.job import Job
from agentorch.core.states import State
from agentorch.jobqueue.jobqueue import first_state
from agentorch.storage.paths import Roots
from agentorch.webhook import idempotency
from agentorch.webhook.context import Site
from agentorch.webhook.request import Request
from agentorch.webhook.responses import Answer, Refusal, problem
from agentorch.webhook.tokens import Caller, refuse_outside, refuse_submitting

MOST_WORKDIR_CHARS = 4096


def submit(site: Site, request: Request, caller: Caller) -> tuple[Job, bool]:
    """Queues what was sent: the job, and whether it is new; a key's later deliveries are not.

    Raises Refusal, Invalid, Duplicate and TryAgain.
    """
    refuse_submitting(caller)
    key = idempotency.key(request.headers)
    asked = parse(body(request, site.settings.max_webhook_body_bytes))
    if isinstance(asked, dict):
        project = asked.get("project_id")
        refuse_outside(project, allowed=caller.may_submit(project))
        asked = from_outside(asked)
    job, complete = accept(asked, site.door, datetime.now(UTC))
    site.queue.prepare()
    floor_bytes = site.settings.min_free_disk_bytes
    if key is None:
        site.queue.submit(job, complete, floor_bytes=floor_bytes)
        return job, True
    digest = idempotency.digest(caller.digest, job.project_id, key)
    return site.queue.submit_once(job, complete, digest, floor_bytes=floor_bytes)


def body(request: Request, most_bytes: int) -> bytes:
    """What was sent. Raises Refusal (413) where that is too much."""
    content = request.body.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise Refusal(too_large(most_bytes))
    return content


def too_large(most_bytes: int) -> Answer:
    """The answer to a body over the limit. Pure."""
    detail = f"the body is larger than {most_bytes} bytes (MAX_WEBHOOK_BODY_BYTES)"
    return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


def from_outside(asked: Document) -> Document:
    """A document as it counts when it came by HTTP: no directory of this host is its source.

    What has the wrong type stays as it is, for the validator to name. Pure.
    """
    return {**asked, **_workdir(asked), **_source(asked)}


def _workdir(asked: Mapping[str, Any]) -> Document:
    given, metadata = asked.get("workdir"), asked.get("metadata", {})
    known = isinstance(given, str) and 0 < len(given) <= MOST_WORKDIR_CHARS
    if not known or not isinstance(metadata, dict):
        return {}
    return {"workdir": ".", "metadata": {**metadata, "ignored_workdir": given}}


def _source(asked: Mapping[str, Any]) -> Document:
    given = asked.get("source", {})
    if not isinstance(given, dict) or not isinstance(given.get("type", ""), str):
        return {}
    source = {**given, "type": "webhook"}
    if isinstance(given.get("meta"), dict):
        # who came with which key is for us to say
        source["meta"] = {k: v for k, v in given["meta"].items() if k != "idempotency"}
    return {"source": source}


def acknowledged(job: Job, roots: Roots) -> Document:
    """What is said of a job that is queued. Pure."""
    waits = first_state(job) is State.AWAITING_APPROVAL
    return {
        "status": State.AWAITING_APPROVAL.value if waits else "queued",
        "job_id": job.job_id,
        "artifacts_dir": str(roots.artifacts(job.job_id).directory),
        "status_url": f"/jobs/{job.job_id}",
    }
