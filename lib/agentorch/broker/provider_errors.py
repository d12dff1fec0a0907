"""The meaning of a provider's errors: an end that is final at once, where a CLI would try on. Pure.

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
# Class, code, and words: none of those that a CLI takes for "try again".
_BY_STATUS: Mapping[int, tuple[str, str, str]] = {
    401: ("auth", "auth_failed", "key refused"),
    402: ("auth", "credit_empty", "no credit"),
    403: ("auth", "auth_failed", "key refused"),
    404: ("policy", "model_unknown", "not found"),
    408: ("infra", "provider_error", "timed out"),
    429: ("quota", "rate_limited", "limit reached"),
    503: ("infra", "overloaded", "too busy"),
    529: ("infra", "overloaded", "too busy"),
}
_OTHER = ("infra", "provider_error", "an error of its own")
_REFUSED = ("infra", "provider_error", "request refused")


def hopeless(status: int, body: bytes, provider: str, now: float) -> End | None:
    """Return the end that an error's body tells by itself; None where asking again may help."""
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


def end_after(status: int, count: int, provider: str) -> End | None:
    """Return the end that so many failures in a row come to; None: it may be tried again.

    Status 0: there was no answer.
    """
    if count < MOST_FAILURES:
        return None
    if not status:
        return End("infra", "network_unreachable", f"{provider} is not reached")
    kind, error, words = _BY_STATUS.get(status, _OTHER if status >= 500 else _REFUSED)
    return End(kind, error, f"{provider} failed {count} times in a row: {words}")


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
