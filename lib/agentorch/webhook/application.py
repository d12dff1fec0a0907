"""The WSGI application: it finds the endpoint, identifies the caller, answers, and logs once."""

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
from agentorch.webhook.clients import client_address, rate_key
from agentorch.webhook.context import Site
from agentorch.webhook.files import artifact_answer
from agentorch.webhook.health import Health
from agentorch.webhook.rate_limit import Limiter
from agentorch.webhook.request import Request, parse_environment
from agentorch.webhook.responses import Answer, Refusal, document, problem, try_again
from agentorch.webhook.routes import Endpoint, Found, WrongMethod, find_route
from agentorch.webhook.submit import read_body, submit, submit_answer, too_large_answer
from agentorch.webhook.tokens import Caller, bearer_token, identify, refuse_deciding, require_caller

MAX_PROBLEMS = 100
ANSWERED: Mapping[type[AgentorchError], HTTPStatus] = {
    Invalid: HTTPStatus.BAD_REQUEST,
    Duplicate: HTTPStatus.CONFLICT,
    Refused: HTTPStatus.CONFLICT,
    UnknownJob: HTTPStatus.NOT_FOUND,  # the job was collected or deleted meanwhile
}
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Application:
    """The application that answers requests, several at a time, each in a thread of the server."""

    def __init__(self, site: Site, journal: Journal) -> None:
        self._site = site
        self._journal = journal
        self._health = Health(site.queue, site.settings.min_free_disk_bytes)
        self.limiter = Limiter(site.limit)

    def __call__(
        self, environment: Mapping[str, Any], start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        began_s = time.monotonic()
        request = parse_environment(environment)
        address = client_address(
            request.peer, request.headers.get("x-forwarded-for"), self._site.proxies
        )
        answer = self._answer(request, address)
        start_response(answer.line, answer.header_list())
        self._log(request, answer, address, time.monotonic() - began_s)
        return _body_chunks(answer, request, environment)

    def _answer(self, request: Request, address: str) -> Answer:
        try:
            return self._route(request, address)
        except Refusal as refusal:
            return refusal.answer
        except (Invalid, Duplicate, Refused, UnknownJob) as trouble:
            return problem(ANSWERED[type(trouble)], "\n".join(trouble.problems[:MAX_PROBLEMS]))
        except TryAgain as trouble:
            return self._not_now(str(trouble))
        except OSError as trouble:  # no client can cause one: the state directory fails
            return self._not_now(f"{trouble.filename}: {trouble.strerror}")

    def refuse(self, status: HTTPStatus, why: str, peer: str) -> Answer:
        """Return the answer to a request that the server could not read, and log it."""
        answer = refusal_answer(status, why, self._site.settings.max_webhook_body_bytes)
        self._journal.info(
            f"refused: {answer.line}", Message.ACCESS, peer=peer, status=status.value
        )
        return answer

    def _not_now(self, why: str) -> Answer:
        self._journal.error(why, Message.REFUSED)
        return try_again("this cannot be done now: the server's journal says why")

    def _route(self, request: Request, address: str) -> Answer:
        found = find_route(request.method, request.path) if request.path is not None else None
        match found:
            case None:
                return problem(HTTPStatus.NOT_FOUND, "there is nothing at this path")
            case WrongMethod(allowed):
                allow = {"Allow": ", ".join(allowed)}
                return problem(
                    HTTPStatus.METHOD_NOT_ALLOWED,
                    "this path needs another method: see Allow",
                    allow,
                )
            case Found(route, names) if route.open:
                return self._open(route.endpoint)
        if found.route.method == "POST":
            self._count(address)
        caller = self._caller(request, address)
        return self._private(found.route.endpoint, request, names, caller)

    def _caller(self, request: Request, address: str) -> Caller:
        try:
            return require_caller(request.headers.get("authorization"), self._site.callers)
        except Refusal:
            # POST requests are counted already. Others are counted only without a valid token: this
            # limits the guessing of tokens, and a client with one may poll its job freely.
            if request.method != "POST":
                self._count(address)
            raise

    def _count(self, address: str) -> None:
        wait_s = self.limiter.count_request(rate_key(address), time.monotonic())
        if wait_s is not None:
            after = {"Retry-After": str(wait_s)}
            detail = f"too many requests: try again in {wait_s} s"
            raise Refusal(problem(HTTPStatus.TOO_MANY_REQUESTS, detail, after))

    def _open(self, endpoint: Endpoint) -> Answer:
        if endpoint is Endpoint.METRICS:
            from agentorch.metrics.exposition import metrics_text  # noqa: PLC0415  (rarely needed: others start faster)

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
                return document(query.list_jobs(site.queue, caller, query.parse_query(request)))
            case Endpoint.STATUS:
                job = site.job(names["job_id"], caller.may_read)
                return document(query.job_status(site.queue, job), job_id=job.job_id)
            case Endpoint.ARTIFACT:
                job = site.job(names["job_id"], caller.may_read)
                directory = site.queue.roots.artifacts(job.job_id).directory
                return artifact_answer(directory, names["path"], job.job_id)
            case _:
                refuse_deciding(caller)
                job = site.job(names["job_id"], caller.may_decide)
                return self._decide(endpoint, request, job, caller)

    def _submit(self, request: Request, caller: Caller) -> Answer:
        job, is_new = submit(self._site, request, caller)
        if is_new:
            self._journal.info("queued", Message.SUBMITTED, job=job.job_id, project=job.project_id)
        return document(submit_answer(job, self._site.queue.roots), job_id=job.job_id)

    def _decide(self, decision: Endpoint, request: Request, job: Job, caller: Caller) -> Answer:
        content = read_body(request, self._site.settings.max_webhook_body_bytes)
        fields = decide.parse_decision(decision, content)
        logged: dict[str, Any] = {
            "job": job.job_id,
            "project": job.project_id,
            "decision": decision.value,
        }
        logged |= {"who": caller.display_name, "token": caller.fingerprint}
        try:
            decide.take_decision(self._site.queue, job.job_id, decision, fields, caller.identity)
        except Refused as refused:
            why = f"{decision} by {caller.display_name} was refused: {refused}"
            self._journal.info(why, Message.REFUSED, **logged)
            raise
        self._journal.info(
            f"{decision}, decided by {caller.display_name}", Message.DECIDED, **logged
        )
        return document(decide.decision_answer(self._site.queue, job, decision), job_id=job.job_id)

    def _fingerprint(self, request: Request) -> str | None:
        """Return the fingerprint of a request's token; None for an unknown one, or none."""
        token = bearer_token(request.headers.get("authorization"))
        caller = identify(token, self._site.callers) if token else None
        return None if caller is None else caller.fingerprint

    def _log(self, request: Request, answer: Answer, address: str, took_s: float) -> None:
        self._journal.info(
            f"{request.method[:20]} {request.shown_path}: {answer.line}",
            Message.ACCESS,
            job=answer.job_id,
            peer=address,
            token=self._fingerprint(request),
            method=request.method[:20],
            path=request.shown_path,
            status=answer.status.value,
            bytes=answer.length_bytes,
            ms=round(took_s * 1000, 1),
        )


def _body_chunks(
    answer: Answer, request: Request, environment: Mapping[str, Any]
) -> Iterable[bytes]:
    if request.method == "HEAD":
        if answer.file is not None:
            answer.file.close()
        return []
    if answer.file is None:
        return [answer.content]
    wrapper: Callable[[BinaryIO], Iterable[bytes]] = environment["wsgi.file_wrapper"]
    return wrapper(answer.file)


def refusal_answer(status: HTTPStatus, why: str, max_body_bytes: int) -> Answer:
    """Return the answer to a request that could not be read, or that met a bug. Pure."""
    if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return too_large_answer(max_body_bytes)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        why = "the server has a bug: its journal has the traceback"
    return problem(status, why)
