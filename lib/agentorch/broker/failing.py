"""What a provider's errors come to: an end that is told at once, where a CLI would try on. Pure.

Some CLIs try each error five or ten times, one of them for minutes and without a word. What can't
get better by asking again ends with the first answer, anything else with the MOST_FAILURES-th in a
row. Sources: platform.openai.com "Error codes" (insufficient_quota), what ChatGPT's backend sends
at a plan's limit (usage_limit_reached with resets_at and resets_in_seconds), docs.anthropic.com
"Errors" (credit balance, 529).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agentorch.broker.account import End

MOST_FAILURES = 4
# A body of an error that is longer is not looked at.
MOST_BYTES = 64 * 1024
# Statuses whose bodies may say that there is no hope.
TELLING = frozenset({400, 402, 403, 404, 429})

_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_BY_STATUS: Mapping[int, tuple[str, str]] = {
    401: ("auth", "auth_failed"),
    402: ("auth", "credit_empty"),
    403: ("auth", "auth_failed"),
    404: ("policy", "model_unknown"),
    408: ("infra", "provider_error"),
    429: ("quota", "rate_limited"),
    503: ("infra", "overloaded"),
    529: ("infra", "overloaded"),
}


def hopeless(status: int, body: bytes, provider: str, now: float) -> End | None:
    """The end that an error's body tells by itself; None where asking again may help."""
    error = _error(body)
    kinds = {str(error.get(key, "")) for key in ("type", "code")}
    if kinds & set(_CREDIT) or "credit balance" in str(error.get("message", "")).lower():
        return End("auth", "credit_empty", f"{provider}: there is no credit left on the account")
    if "usage_limit_reached" in kinds:
        free_at = _free_at(error, now)
        when = "" if free_at is None else f"; resets_at {int(free_at)}"
        return End(
            "quota", "rate_limited", f"{provider}: the plan's limit is reached{when}", free_at
        )
    if status == 404 and kinds & {"model_not_found", "not_found_error"}:
        return End("policy", "model_unknown", f"{provider}: it has no such model")
    return None


def given_up(status: int, count: int, provider: str) -> End | None:
    """The end that so many failures in a row come to; None: it may be tried again.

    Status 0: there was no answer.
    """
    if count < MOST_FAILURES:
        return None
    if not status:
        return End("infra", "network_unreachable", f"{provider} is not reached")
    kind, error = _BY_STATUS.get(status, ("infra", "provider_error"))
    return End(kind, error, f"{provider} failed {count} times in a row: {_words(status)}")


def _error(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # a page of some gateway
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}


def _free_at(error: Mapping[str, Any], now: float) -> float | None:
    match error.get("resets_at"), error.get("resets_in_seconds"):
        case (int() | float() as moment, _):
            return float(moment)
        case (_, int() | float() as seconds):
            return now + float(seconds)
    return None


# No number of a status, and none of the words that a CLI takes for "try again", see opencode's.
_SAID: Mapping[int, str] = {
    401: "key refused",
    402: "no credit",
    403: "key refused",
    404: "not found",
    408: "timed out",
    429: "limit reached",
    503: "too busy",
    529: "too busy",
}


def _words(status: int) -> str:
    return _SAID.get(status, "an error of its own" if status >= 500 else "request refused")
