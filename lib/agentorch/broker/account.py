"""The account of a grant: calls, tokens, money, refusals, and why it ended.

One JSON object an attempt, kept by the broker and read by the step (GET /agentorch/account).
Every list and table in it is bounded: an agent decides how long it would be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from agentorch.broker.grants import Grant, Grants

MOST_REFUSED = 100
MOST_CONNECTIONS = 100
MOST_MODELS = 50
MOST_RATE_LIMITS = 50
_MOST_CHARS = 500


@dataclass
class ModelAccount:
    """One model's part. `cost_usd` is None where its price is not known."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float | None = None


@dataclass(frozen=True)
class End:
    """Why nothing more can come of this grant: an outcome class, a code, words for people.

    `resets_at` (seconds since 1970) is when a quota is there again, None where nobody said.
    """

    kind: str
    error: str
    words: str
    resets_at: float | None = None


@dataclass
class Account:
    """A grant's account. `tokens_in` includes cached ones, `tokens_out` those of reasoning.

    `failures` are the provider's in a row. `providers` says of each of the grant's by what name its
    key is there (`provider:NAME` where it wants none), None where there is none.
    """

    providers: dict[str, str | None] = field(default_factory=dict)
    calls: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    tokens_reasoning: int = 0
    cost_usd: float = 0.0
    unpriced_calls: int = 0
    failures: int = 0
    models: dict[str, ModelAccount] = field(default_factory=dict)
    refusals: list[dict[str, str]] = field(default_factory=list)
    connections: list[str] = field(default_factory=list)
    rate_limits: dict[str, str] = field(default_factory=dict)
    end: End | None = None

    def note_refusal(self, what: str, why: str) -> None:
        """Note what was refused; of what comes again and again, the first."""
        one = {"what": what[:_MOST_CHARS], "why": why[:_MOST_CHARS]}
        if len(self.refusals) < MOST_REFUSED and one not in self.refusals:
            self.refusals.append(one)

    def note_connection(self, host: str) -> None:
        """Note that `NAME:PORT` was connected to."""
        if len(self.connections) < MOST_CONNECTIONS and host not in self.connections:
            self.connections.append(host)

    def limits(self, headers: Mapping[str, str]) -> None:
        """Keep the provider's newest rate-limit headers."""
        for name, value in headers.items():
            if name in self.rate_limits or len(self.rate_limits) < MOST_RATE_LIMITS:
                self.rate_limits[name] = value[:_MOST_CHARS]

    def model(self, name: str) -> ModelAccount:
        """Return the part of a model; of too many models the last are one."""
        if name not in self.models and len(self.models) >= MOST_MODELS:
            name = "other"
        return self.models.setdefault(name, ModelAccount())


class Accounts:
    """The account of each grant, as long as the grant is there. `new` opens one."""

    def __init__(self, grants: Grants, new: Callable[[Grant], Account]) -> None:
        self._grants = grants
        self._new = new
        self._accounts: dict[str, Account] = {}

    def account_of(self, grant: Grant) -> Account:
        """Return the account of a grant; with a new one those of grants that are gone are
        closed.
        """
        if grant.digest not in self._accounts:
            living = self._grants.forget_gone()
            self._accounts = {one: kept for one, kept in self._accounts.items() if one in living}
            self._accounts[grant.digest] = self._new(grant)
        return self._accounts[grant.digest]


def document(account: Account) -> dict[str, Any]:
    """Return an account as it is sent. Pure."""
    found = asdict(account)
    found["refused"] = found.pop("refusals")
    if found["end"] is not None:
        found["end"]["class"] = found["end"].pop("kind")
    return found


def account_of(found: Mapping[str, Any]) -> Account:
    """Return an account as it came. Raises ValueError where it is none. Pure."""
    known = dict(found)
    try:
        known["refusals"] = known.pop("refused")
        known["models"] = {name: ModelAccount(**one) for name, one in known["models"].items()}
        if known["end"] is not None:
            end = dict(known["end"])
            known["end"] = End(kind=end.pop("class"), **end)
        return Account(**known)
    except (KeyError, TypeError, AttributeError) as problem:
        raise ValueError(f"no account: {problem}") from problem
