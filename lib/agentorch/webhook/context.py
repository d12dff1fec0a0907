"""The site that the endpoints work on, made once at the start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from agentorch.agents.registry import load
from agentorch.config.settings import Settings
from agentorch.contracts.accept import ServerRules
from agentorch.core.job import JOB_ID, Job
from agentorch.jobqueue.jobqueue import Queue, read_job
from agentorch.webhook.clients import Network, parse_networks
from agentorch.webhook.rate_limit import Limit
from agentorch.webhook.responses import Refusal, problem
from agentorch.webhook.tokens import Caller, Tokens, list_callers, refuse_outside


@dataclass(frozen=True)
class Site:
    """A queue, with the callers that may use it and the rules for their requests."""

    settings: Settings
    queue: Queue
    door: ServerRules
    callers: Sequence[Caller]
    proxies: Sequence[Network]
    limit: Limit

    def job(self, job_id: str, may: Callable[[object], bool]) -> Job:
        """Return a job whose project `may` allows. Raises Refusal: 404 unknown, 403 not allowed."""
        try:
            job = read_job(self.queue.roots.artifacts(job_id).job) if is_job_id(job_id) else None
        except FileNotFoundError:
            job = None
        if job is None:
            raise Refusal(problem(HTTPStatus.NOT_FOUND, "there is no such job"))
        refuse_outside(job.project_id, allowed=may(job.project_id))
        return job


def is_job_id(text: str) -> bool:
    """Return whether a job could have this id. Pure."""
    return JOB_ID.fullmatch(text) is not None


def build_site(settings: Settings, tokens: Tokens) -> Site:
    """Return the site of a configuration. Raises Misconfigured."""
    door = ServerRules(
        load(settings).abilities(),
        tuple(settings.project_aliases),
        settings.allowed_hosts,
        source_type="webhook",
        handoff=settings.default_artifact_handoff,
    )
    limit = Limit(settings.webhook_rate_limit_max_requests, settings.webhook_rate_limit_window_s)
    proxies = parse_networks(settings.webhook_trusted_proxies)
    return Site(settings, Queue(settings.roots), door, list_callers(tokens), proxies, limit)
