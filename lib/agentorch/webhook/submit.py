"""POST /webhook: the submission of a job; one that is answered with 200 survives a power cut."""

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

MAX_WORKDIR_CHARS = 4096


def submit(site: Site, request: Request, caller: Caller) -> tuple[Job, bool]:
    """Queue the submitted job; return it, and whether it is new.

    A later delivery with the same idempotency key returns the first job, which is not new.
    Raises Refusal, Invalid, Duplicate and TryAgain.
    """
    refuse_submitting(caller)
    key = idempotency.idempotency_key(request.headers)
    document = parse(read_body(request, site.settings.max_webhook_body_bytes))
    if isinstance(document, dict):
        project = document.get("project_id")
        refuse_outside(project, allowed=caller.may_submit(project))
        document = from_outside(document)
    job, complete = accept(document, site.door, datetime.now(UTC))
    site.queue.prepare()
    floor_bytes = site.settings.min_free_disk_bytes
    if key is None:
        site.queue.submit(job, complete, floor_bytes=floor_bytes)
        return job, True
    digest = idempotency.key_digest(caller.digest, job.project_id, key)
    return site.queue.submit_once(job, complete, digest, floor_bytes=floor_bytes)


def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body of a request. Raises Refusal (413) where it is too large."""
    content = request.body.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise Refusal(too_large_answer(max_bytes))
    return content


def too_large_answer(max_bytes: int) -> Answer:
    """Return the answer to a body over the limit. Pure."""
    detail = f"the body is larger than {max_bytes} bytes (MAX_WEBHOOK_BODY_BYTES)"
    return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


def from_outside(document: Document) -> Document:
    """Return a document as it counts when it came by HTTP: its source is no directory of this host.

    A value of the wrong type stays as it is, so that the validator reports it. Pure.
    """
    return {**document, **_workdir(document), **_source(document)}


def _workdir(document: Mapping[str, Any]) -> Document:
    given, metadata = document.get("workdir"), document.get("metadata", {})
    known = isinstance(given, str) and 0 < len(given) <= MAX_WORKDIR_CHARS
    if not known or not isinstance(metadata, dict):
        return {}
    return {"workdir": ".", "metadata": {**metadata, "ignored_workdir": given}}


def _source(document: Mapping[str, Any]) -> Document:
    given = document.get("source", {})
    if not isinstance(given, dict) or not isinstance(given.get("type", ""), str):
        return {}
    source = {**given, "type": "webhook"}
    if isinstance(given.get("meta"), dict):
        # only the server may record an idempotency key
        source["meta"] = {k: v for k, v in given["meta"].items() if k != "idempotency"}
    return {"source": source}


def submit_answer(job: Job, roots: Roots) -> Document:
    """Return the answer to a submission: the job's id and where to find it. Pure."""
    waits = first_state(job) is State.AWAITING_APPROVAL
    return {
        "status": State.AWAITING_APPROVAL.value if waits else "queued",
        "job_id": job.job_id,
        "artifacts_dir": str(roots.artifacts(job.job_id).directory),
        "status_url": f"/jobs/{job.job_id}",
    }
