"""The limits in a provider's headers: kept, and read for when they end. Pure.

Sources: RFC 9110 section 10.2.3 (Retry-After: seconds or a date), docs.anthropic.com "Rate limits"
(anthropic-ratelimit-*-{limit,remaining,reset}, RFC 3339), platform.openai.com "Rate limits"
(x-ratelimit-{limit,remaining,reset}-*, durations like 6m0s), retry-after-ms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# A wait that an agent may sit out by itself; a longer one ends its step as `quota`.
PATIENCE_S = 60.0

_KEPT = re.compile(r"(?:retry-after|.*ratelimit).*", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,9})?")
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")
_UNITS_S = (86400.0, 3600.0, 60.0, 1.0, 0.001)
# A number above this is a moment (2001), above that one in milliseconds; below, a duration.
_EPOCH = 1e9
_EPOCH_MS = 1e12


def limit_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers about limits, with their names in small letters."""
    return {name.lower(): value for name, value in headers.items() if _KEPT.fullmatch(name)}


def free_at(headers: Mapping[str, str], now: float) -> float | None:
    """Return when (seconds since 1970) a call that was answered with 429 may be tried again.

    Retry-After decides; without one the limits that are used up do. None where nobody says.
    """
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    if _NUMBER.fullmatch(lower.get("retry-after-ms", "")):
        return now + float(lower["retry-after-ms"]) / 1000
    if "retry-after" in lower and (told := moment(lower["retry-after"], now)) is not None:
        return told
    moments = [
        told
        for name, value in lower.items()
        if "ratelimit" in name and "reset" in name
        if lower.get(name.replace("reset", "remaining"), "0") == "0"
        if (told := moment(value, now)) is not None
    ]
    return max(moments, default=None)


def moment(text: str, now: float) -> float | None:
    """Return a header's value as seconds since 1970: seconds, `1h2m3.5s`, a date, or a moment
    already.
    """
    if _NUMBER.fullmatch(text):
        number = float(text)
        if number >= _EPOCH_MS:
            return number / 1000
        return number if number >= _EPOCH else now + number
    match = _DURATION.fullmatch(text)
    if match is not None and text:
        parts = zip(match.groups(), _UNITS_S, strict=True)
        return now + sum(float(part) * unit for part, unit in parts if part)
    return _date(text)


def _date(text: str) -> float | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = read(text)
        except (ValueError, TypeError, IndexError):  # not in this form
            continue
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    return None
