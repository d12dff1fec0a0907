"""One call of an agent to its model: judged, forwarded, counted, and passed back as it comes.

What a call used is on its grant's account before the bytes that say so are sent on: an agent that
saw the end of an answer finds it in the account, and so does the step.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
from aiohttp import web

from agentorch.broker import provider_errors, provider_request, rate_headers, wire_formats
from agentorch.broker.account import Account, End, document
from agentorch.broker.admission import Call, CallJudge, Refusal
from agentorch.broker.billing import Bill
from agentorch.broker.grants import Grant, Grants, whose
from agentorch.broker.key_mask import Mask
from agentorch.broker.keys import Keys
from agentorch.broker.providers import OURS
from agentorch.broker.request_bodies import Bodies, Incomplete, TooLarge
from agentorch.broker.upstream import Asking, Unanswered, Upstream
from agentorch.broker.usage_meter import Meter
from agentorch.broker.wire_formats import Wire
from agentorch.core.errors import Misconfigured
from agentorch.core.text import one_line
from agentorch.systemd.journal import Journal
from agentorch.systemd.message_ids import Message

ACCOUNT = f"/{OURS}/account"
# Within it the body of an error is there, or is not waited for.
ERROR_S = 10
MOST_CALLS = 64  # of one grant at a time: no CLI has ten
_MOST_WARNED = 1000
EVENTS = "text/event-stream"


@dataclass
class Calls:
    """All calls. `total_s` is how long one may last."""

    grants: Grants
    judge: CallJudge
    keys: Keys
    upstream: Upstream
    journal: Journal
    total_s: float
    bodies: Bodies = field(default_factory=Bodies)
    _open: Counter[str] = field(default_factory=Counter)
    _warned: set[str] = field(default_factory=set)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return what the HTTP server calls."""
        grant = self.grants.find(provider_request.token(request.headers))
        provider, _, rest = request.rel_url.raw_path.lstrip("/").partition("/")
        call: Call | None = None
        try:
            grant = self.judge.check_grant(grant)
            if request.rel_url.raw_path == ACCOUNT and request.method == "GET":
                return _json(200, document(self.judge.accounts.account_of(grant)))
            call = self.judge.judge(request, grant, provider, rest)
            return await self._count(request, call)
        except Refusal as refusal:
            return self._refuse(request, refusal, grant, call)

    def _key(self, call: Call) -> str:
        """Return the provider's key, whose name is noted. Raises Refusal."""
        variable = call.provider.key_variable
        if not variable:
            call.credential = call.provider.keyless
            return ""
        try:
            found = self.keys.find_named(variable, call.grant.agent, call.grant.project_id)
        except Misconfigured as problem:
            self.journal.error(str(problem), Message.MISCONFIGURED, **whose(call.grant))
            found = None
        if found is None:
            words = f"the broker has no key for {call.provider.name} ({variable})"
            raise Refusal("auth", words, end=End("auth", "auth_failed", words))
        call.credential, key = found
        call.account.providers[call.provider.name] = call.credential
        return key

    # ---- forwarding ---------------------------------------------------------------------------

    async def _count(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        if self._open[call.grant.digest] >= MOST_CALLS:
            raise Refusal("policy", f"this step has {MOST_CALLS} calls open already")
        self._open[call.grant.digest] += 1
        try:
            self.judge.check_budget(call)
            key = self._key(call)
            self.judge.check_wall(call)
            async with self.bodies.read(request) as body:
                asked = _parse_body(body, call.wire)
                self.judge.check_priced(call, asked.model)
                answer = await _while_there(request, self._forward(request, call, asked, key))
            self._log(call)
            return answer or web.Response(status=499, reason="Client Closed Request")
        except TooLarge as problem:
            raise Refusal("policy", str(problem), status=413) from problem
        except Incomplete as problem:
            raise Refusal("infra", "the request broke off", status=400) from problem
        finally:
            self._open[call.grant.digest] -= 1
            self._open += Counter()  # drops those that have none

    async def _forward(
        self, request: web.BaseRequest, call: Call, asked: provider_request.CallBody, key: str
    ) -> web.StreamResponse:
        asking = self._asking(request, call, asked, key)
        try:
            async with self.upstream.ask(asking) as answer:
                call.status = answer.status
                call.first_ms = _ms_since(call.began)
                self._note(call, answer, Mask(key))
                self.judge.check_far(call, answer)
                beginning = await _beginning(answer)
                self.judge.check_failing(call, answer.status, beginning)
                if call.is_paid and answer.status == 200:
                    call.bill = Bill(
                        call.account, self.judge.prices, asked.model, self._warn_unpriced
                    )
                chunks = _behind(beginning, self.upstream.chunks(asking, answer))
                return await self._pass_on(request, call, chunks, answer, Mask(key))
        except Unanswered as problem:
            self.judge.check_failing(call, 0, b"")
            raise Refusal("infra", str(problem), status=502) from problem
        finally:
            if call.bill is not None:
                call.bill.close()

    def _asking(
        self, request: web.BaseRequest, call: Call, asked: provider_request.CallBody, key: str
    ) -> Asking:
        url = wire_formats.upstream_url(call.provider.base_url, call.rest, call.wire)
        query = request.rel_url.raw_query_string
        body = asked.body if request.method == "POST" else None
        length = None if body is None else len(body)
        credentials = call.provider.credentials(key)
        left_s = min(self.total_s, call.grant.expires_at - self.judge.now())
        return Asking(
            method=request.method,
            url=f"{url}?{query}" if query else url,
            host=call.provider.host,
            headers=provider_request.to_provider(request.headers, credentials, length),
            body=body,
            stream=asked.stream,
            deadline=asyncio.get_running_loop().time() + left_s,
        )

    def _note(self, call: Call, answer: aiohttp.ClientResponse, mask: Mask) -> None:
        """Note on the account what the answer's status and headers say about the grant."""
        account = call.account
        kept = rate_headers.limit_headers(answer.headers)
        account.limits({name: mask.text(value) for name, value in kept.items()})
        if answer.status in (401, 403):
            words = f"{call.provider.name} refused the key (HTTP {answer.status})"
            account.end = account.end or End("auth", "auth_failed", words)
        elif answer.status < 300 and account.end is not None and account.end.kind != "budget":
            account.end = None  # it was not the end

    async def _pass_on(
        self,
        request: web.BaseRequest,
        call: Call,
        chunks: AsyncIterator[bytes],
        answer: aiohttp.ClientResponse,
        mask: Mask,
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        for name, value in provider_request.to_client(answer.headers).items():
            response.headers[name] = mask.text(value)
        await response.prepare(request)
        meter = Meter(call.wire, events=answer.content_type == EVENTS)
        try:
            async for chunk in chunks:
                meter.feed(chunk)
                self._book(call, meter, answer)
                if sent := mask.feed(chunk):
                    await response.write(sent)
        except Unanswered as problem:
            call.words = str(problem)
            return _break_off(request, response)
        except Refusal as cut:
            self._note_end(call.account, cut, f"{request.method} {request.path}")
            call.words = cut.words
            return _break_off(request, response)
        meter.close()
        if call.bill is not None and meter.usage is not None:
            call.bill.note(meter.usage)
        if call.bill is not None:
            call.bill.close()
        await response.write_eof(mask.close())
        return response

    def _book(self, call: Call, meter: Meter, answer: aiohttp.ClientResponse) -> None:
        """Raise Refusal where a stream has used up what the grant has."""
        if call.bill is None or meter.usage is None or meter.usage == call.bill.usage:
            return
        call.bill.note(meter.usage)
        # A whole answer is paid for already; of a stream the rest is saved.
        if answer.content_type == EVENTS:
            self.judge.check_budget(call)

    # ---- what is said -------------------------------------------------------------------------

    def _refuse(
        self, request: web.BaseRequest, refusal: Refusal, grant: Grant | None, call: Call | None
    ) -> web.Response:
        what = one_line(f"{request.method} {request.path}", 200)
        if grant is not None:
            self._note_end(self.judge.accounts.account_of(grant), refusal, what)
        words = f"{what}: refused: {refusal.kind}: {refusal.words}"
        self.journal.info(words, Message.BROKER_REFUSED, **whose(grant))
        wire = call.wire if call else Wire.MESSAGES if "messages" in request.path else Wire.CHAT
        message = f"{OURS}: {refusal.kind}: {wire_formats.without_numbers(refusal.words)}"
        body = wire_formats.refusal(wire, refusal.status, message)
        return web.Response(status=refusal.status, body=body, content_type="application/json")

    @staticmethod
    def _note_end(account: Account, refusal: Refusal, what: str) -> None:
        if refusal.kind != "infra":
            account.note_refusal(what, f"{refusal.kind}: {refusal.words}")
        account.end = refusal.end or account.end

    def _warn_unpriced(self, model: str) -> None:
        if model not in self._warned and len(self._warned) < _MOST_WARNED:
            self._warned.add(model)
            self.journal.warning(
                f"{model!r}: no price is known, or no usage was told: its cost is not counted "
                "(prices.toml)"
            )

    def _log(self, call: Call) -> None:
        fields: dict[str, Any] = {"status": call.status, "first_ms": call.first_ms}
        if call.bill is not None:
            usage, cost = call.bill.usage, call.bill.cost_usd
            fields |= {"model": call.bill.model}
            fields |= {"tokens_in": usage.tokens_in, "tokens_out": usage.tokens_out}
            fields["cost_usd"] = None if cost is None else round(cost, 6)
        message = f"{call.provider.name}/{call.rest}" + (f": {call.words}" if call.words else "")
        fields |= {**whose(call.grant), "ms": _ms_since(call.began)}
        self.journal.info(message, Message.BROKER_CALLED, **fields)


def _parse_body(body: bytes, wire: Wire) -> provider_request.CallBody:
    try:
        return provider_request.parse_body(body, wire)
    except ValueError as problem:
        raise Refusal("policy", str(problem), status=400) from problem


async def _beginning(answer: aiohttp.ClientResponse) -> bytes:
    """Return what is there of an error's body within a time; nothing of an answer that is none."""
    body = b""
    if answer.status not in provider_errors.TELLING:
        return body
    # what is wrong with the rest is told when it is passed on
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with asyncio.timeout(ERROR_S):
            while len(body) < provider_errors.MOST_BYTES and (
                more := await answer.content.readany()
            ):
                body += more
    return body


async def _behind(beginning: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if beginning:
        yield beginning
    async for chunk in chunks:
        yield chunk


async def _while_there(request: web.BaseRequest, talk: Any) -> web.StreamResponse | None:
    """Return the answer; None as soon as the client is gone: then the provider's is given up,
    too.
    """
    gone = cast("Any", request.protocol).gone
    talking = asyncio.ensure_future(talk)
    try:
        await asyncio.wait({talking, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not talking.done():
            talking.cancel()
            await asyncio.wait({talking})
    if talking.cancelled():
        return None
    try:
        return cast(web.StreamResponse, talking.result())
    except ConnectionResetError:  # it left while it was written to, a moment before `gone` says so
        return None


def _break_off(request: web.BaseRequest, response: web.StreamResponse) -> web.StreamResponse:
    """End the connection without the answer's end, so that nobody takes it for whole."""
    if request.transport is not None:
        request.transport.close()
    return response


def _json(status: int, found: Any) -> web.Response:
    return web.Response(
        status=status, body=json.dumps(found).encode(), content_type="application/json"
    )


def _ms_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
