"""The WSGI application: finds the endpoint, asks who is there, answers, and logs it once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, BinaryIO

from agentorch.core.errors import AgentorchError, Duplicate, Invalid, Refused, TryAgain, UnknownJob
from agentorch.core.job import Job
from agentorch.systemd.journal import Journal
from agentorch.systemd.message_ids import Message
from agentorch.webhook import decide, query
from agentorch.webhook.clients import client, counted
from agentorch.webhook.context import Site
from agentorch.webhook.files import artifact
from agentorch.webhook.health import Health
from agentorch.webhook.rate_limit import Limiter
from agentorch.webhook.request import Request, of_environment
from agentorch.webhook.responses import Answer, Refusal, document, problem, try_again
from agentorch.webhook.routes import Endpoint, Found, NoMethod, find
from agentorch.webhook.submit import acknowledged, body, submit, too_large
from agentorch.webhook.tokens import Caller, bearer, identify, refuse_deciding, required

MOST_PROBLEMS = 100
ANSWERED: Mapping[type[AgentorchError], HTTPStatus] = {
    Invalid: HTTPStatus.BAD_REQUEST,
    Duplicate: HTTPStatus.CONFLICT,
    Refused: HTTPStatus.CONFLICT,
    UnknownJob: HTTPStatus.NOT_FOUND,  # it was collected or deleted meanwhile
}
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Application:
    """Answers requests; many at a time, each in a thread of the server's."""

    def __init__(self, site: Site, journal: Journal) -> None:
        self._site = site
        self._journal = journal
        self._health = Health(site.queue, site.settings.min_free_disk_bytes)
        self.limiter = Limiter(site.limit)

    def __call__(
        self, environment: Mapping[str, Any], start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answers one request (PEP 3333)."""
        began_s = time.monotonic()
        request = of_environment(environment)
        asks = client(request.peer, request.headers.get("x-forwarded-for"), self._site.proxies)
        answer = self._answered(request, asks)
        start_response(answer.line, answer.header_list())
        self._log(request, answer, asks, time.monotonic() - began_s)
        return _sent(answer, request, environment)

    def _answered(self, request: Request, asks: str) -> Answer:
        try:
            return self._answer(request, asks)
        except Refusal as refusal:
            return refusal.answer
        except (Invalid, Duplicate, Refused, UnknownJob) as trouble:
            return problem(ANSWERED[type(trouble)], "\n".join(trouble.problems[:MOST_PROBLEMS]))
        except TryAgain as trouble:
            return self._not_now(str(trouble))
        except OSError as trouble:  # no client can cause one: the state is out of reach
            return self._not_now(f"{trouble.filename}: {trouble.strerror}")

    def refused(self, status: HTTPStatus, why: str, peer: str) -> Answer:
        """The answer to a request that did not come this far; logs it."""
        answer = refusal(status, why, self._site.settings.max_webhook_body_bytes)
        self._journal.info(
            f"refused: {answer.line}", Message.ACCESS, peer=peer, status=status.value
        )
        return answer

    def _not_now(self, why: str) -> Answer:
        self._journal.error(why, Message.REFUSED)
        return try_again("that can't be done now: the server's journal says why")

    def _answer(self, request: Request, asks: str) -> Answer:
        found = find(request.method, request.path) if request.path is not None else None
        match found:
            case None:
                return problem(HTTPStatus.NOT_FOUND, "nothing is here")
            case NoMethod(allowed):
                allow = {"Allow": ", ".join(allowed)}
                return problem(HTTPStatus.METHOD_NOT_ALLOWED, "another method is needed", allow)
            case Found(route, names) if route.open:
                return self._open(route.endpoint)
        if found.route.method == "POST":
            self._count(asks)
        return self._private(found.route.endpoint, request, names, self._caller(request, asks))

    def _caller(self, request: Request, asks: str) -> Caller:
        try:
            return required(request.headers.get("authorization"), self._site.callers)
        except Refusal:
            # whoever tries out tokens is counted everywhere; who has one may ask how its job does
            if request.method != "POST":
                self._count(asks)
            raise

    def _count(self, asks: str) -> None:
        wait_s = self.limiter.asks(counted(asks), time.monotonic())
        if wait_s is not None:
            after = {"Retry-After": str(wait_s)}
            detail = f"too many requests: try again in {wait_s} s"
            raise Refusal(problem(HTTPStatus.TOO_MANY_REQUESTS, detail, after))

    def _open(self, endpoint: Endpoint) -> Answer:
        if endpoint is Endpoint.METRICS:
            from agentorch.metrics.exposition import metrics_text  # noqa: PLC0415  (few ask: others start faster)

            return Answer(HTTPStatus.OK, metrics_text(self._site.settings), PROMETHEUS)
        trouble = self._health.problem()
        return document({"ok": True}) if trouble is None else try_again(trouble)

    def _private(
        self, endpoint: Endpoint, request: Request, names: Mapping[str, str], caller: Caller
    ) -> Answer:
        site = self._site
        match endpoint:
            case Endpoint.SUBMIT:
                return self._submit(request, caller)
            case Endpoint.LIST:
                return document(query.listing(site.queue, caller, query.asked(request)))
            case Endpoint.STATUS:
                job = site.job(names["job_id"], caller.may_read)
                return document(query.status(site.queue, job), job_id=job.job_id)
            case Endpoint.ARTIFACT:
                job = site.job(names["job_id"], caller.may_read)
                directory = site.queue.roots.artifacts(job.job_id).directory
                return artifact(directory, names["path"], job.job_id)
            case _:
                refuse_deciding(caller)
                job = site.job(names["job_id"], caller.may_decide)
                return self._decide(endpoint, request, job, caller)

    def _submit(self, request: Request, caller: Caller) -> Answer:
        job, is_new = submit(self._site, request, caller)
        if is_new:
            self._journal.info("queued", Message.SUBMITTED, job=job.job_id, project=job.project_id)
        return document(acknowledged(job, self._site.queue.roots), job_id=job.job_id)

    def _decide(self, decision: Endpoint, request: Request, job: Job, caller: Caller) -> Answer:
        content = body(request, self._site.settings.max_webhook_body_bytes)
        wanted = decide.asked(decision, content)
        told: dict[str, Any] = {
            "job": job.job_id,
            "project": job.project_id,
            "decision": decision.value,
        }
        told |= {"who": caller.called, "token": caller.fingerprint}
        try:
            decide.take(self._site.queue, job.job_id, decision, wanted, caller.who)
        except Refused as refused:
            why = f"{decision} by {caller.called} was refused: {refused}"
            self._journal.info(why, Message.REFUSED, **told)
            raise
        self._journal.info(f"{decision}, decided by {caller.called}", Message.DECIDED, **told)
        return document(decide.taken(self._site.queue, job, decision), job_id=job.job_id)

    def _token(self, request: Request) -> str | None:
        """What is said of a request's token; None where it is none that we know."""
        token = bearer(request.headers.get("authorization"))
        caller = identify(token, self._site.callers) if token else None
        return None if caller is None else caller.fingerprint

    def _log(self, request: Request, answer: Answer, asks: str, took_s: float) -> None:
        self._journal.info(
            f"{request.method[:20]} {request.shown_path}: {answer.line}",
            Message.ACCESS,
            job=answer.job_id,
            peer=asks,
            token=self._token(request),
            method=request.method[:20],
            path=request.shown_path,
            status=answer.status.value,
            bytes=answer.length_bytes,
            ms=round(took_s * 1000, 1),
        )


def _sent(answer: Answer, request: Request, environment: Mapping[str, Any]) -> Iterable[bytes]:
    if request.method == "HEAD":
        if answer.file is not None:
            answer.file.close()
        return []
    if answer.file is None:
        return [answer.content]
    wrapper: Callable[[BinaryIO], Iterable[bytes]] = environment["wsgi.file_wrapper"]
    return wrapper(answer.file)


def refusal(status: HTTPStatus, why: str, most_body_bytes: int) -> Answer:
    """The answer to a request that could not be read, or that a bug left without one. Pure."""
    if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return too_large(most_body_bytes)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        why = "a bug in the server: its journal has the trace"
    return problem(status, why)
