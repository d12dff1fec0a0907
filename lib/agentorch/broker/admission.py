"""The admission of calls: whether one may be made, and whether more of its kind have any hope."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from agentorch.broker import provider_errors, rate_headers, wire_formats
from agentorch.broker.account import Account, Accounts, End
from agentorch.broker.billing import Bill
from agentorch.broker.grants import Grant
from agentorch.broker.prices import Prices
from agentorch.broker.providers import Provider
from agentorch.broker.wire_formats import Wire
from agentorch.core.text import one_line


class Refusal(Exception):
    """A call that gets an answer of ours. `end` says why nothing more can come of the grant."""

    def __init__(self, kind: str, words: str, *, status: int = 403, end: End | None = None) -> None:
        super().__init__(words)
        self.kind = kind
        self.words = words
        self.status = status
        self.end = end


@dataclass
class Call:
    """A call and what is known of it as it goes on."""

    grant: Grant
    account: Account
    provider: Provider
    wire: Wire
    rest: str
    began: float = field(default_factory=time.monotonic)
    first_ms: int | None = None
    status: int = 0
    bill: Bill | None = None
    words: str = ""
    credential: str = ""

    @property
    def is_paid(self) -> bool:
        """Return whether its answer costs money."""
        return self.rest in wire_formats.PAID


@dataclass
class CallJudge:
    """The judge of calls. `walls` are the ends of credentials whose limit is reached."""

    accounts: Accounts
    providers: dict[str, Provider]
    prices: Prices
    now: Callable[[], float] = time.time
    walls: dict[str, End] = field(default_factory=dict)

    def check_grant(self, grant: Grant | None) -> Grant:
        if grant is None:
            raise Refusal("auth", "this token is of no step that runs")
        return grant

    def judge(self, request: web.BaseRequest, grant: Grant, name: str, rest: str) -> Call:
        """Return the call, where it may be made at all. Raises Refusal."""
        provider = self.providers.get(name)
        if provider is None or name not in grant.providers:
            raise Refusal("policy", f"{one_line(name, 40)!r} is no provider of this step")
        wire = wire_formats.wire_of(request.method, rest, provider.wires)
        if wire is None:
            what = one_line(f"{request.method} {rest}", 100)
            raise Refusal("policy", f"{what!r} is not among what {name} may be asked")
        return Call(grant, self.accounts.account_of(grant), provider, wire, rest)

    def check_budget(self, call: Call) -> None:
        cap = call.grant.max_cost_usd
        if call.is_paid and cap is not None and call.account.cost_usd >= cap:
            words = f"${call.account.cost_usd:.4f} of ${cap:g} are used up"
            raise Refusal("budget", words, end=End("budget", call.grant.cap, words))

    def check_priced(self, call: Call, model: str) -> None:
        """Refuse a model without a price under a cap: a cap that can't be held is none."""
        if not call.is_paid or call.grant.max_cost_usd is None or self.prices.has(model):
            return
        words = (
            f"{one_line(model, 100)!r} has no price, so max_cost_usd can't be held (prices.toml)"
        )
        raise Refusal("budget", words, end=End("budget", "unpriced", words))

    def check_wall(self, call: Call) -> None:
        """Whoever has the same key need not run into the same limit. Raises Refusal."""
        end = self.walls.get(call.credential)
        if not call.is_paid or end is None:
            return
        if end.resets_at is None or end.resets_at <= self.now():
            del self.walls[call.credential]
            return
        raise Refusal(end.kind, end.words, end=end)

    def check_failing(self, call: Call, status: int, body: bytes) -> None:
        """End what has no hope, where some CLIs would try again for long. Raises Refusal."""
        account, provider = call.account, call.provider.name
        if 0 < status < 400:
            account.failures = 0
            return
        if not call.is_paid:
            return
        account.failures += 1
        end = provider_errors.hopeless(
            status, body, provider, self.now()
        ) or provider_errors.end_after(status, account.failures, provider)
        if end is not None:
            raise self._wall(call, end)

    def check_far(self, call: Call, answer: aiohttp.ClientResponse) -> None:
        """End a call whose limit is not free again soon: some CLIs would wait for it.

        Raises Refusal.
        """
        now = self.now()
        free_at = rate_headers.free_at(answer.headers, now) if answer.status == 429 else None
        if free_at is None or free_at - now <= rate_headers.PATIENCE_S:
            return
        when = f"resets_at {int(free_at)} (in {int(free_at - now)} s)"
        words = f"{call.provider.name}: the limit is reached; {when}"
        raise self._wall(call, End("quota", "rate_limited", words, free_at))

    def _wall(self, call: Call, end: End) -> Refusal:
        if end.kind == "quota" and end.resets_at is not None and call.credential:
            self.walls[call.credential] = end
        return Refusal(end.kind, end.words, end=end)
