"""Figures, moments and text as a page shows them. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from agentorch.core import times

NOTHING = "\N{EN DASH}"
_THIN = "\u202f"
_NONCHARACTERS = "".join(
    f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17)
)
# Controls but tab and newline; what has no width, or turns the reading direction; tags;
# surrogates; noncharacters. A page could hold most of them, and would show other than it has.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\ufdd0-\ufdef"
    f"\U000e0000-\U000e007f{_NONCHARACTERS}]"
)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def visible(text: str) -> str:
    """`text` with a picture in the place of each character that nobody would see."""
    return _HIDDEN.sub(_picture, text.replace("\r\n", "\n"))


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\u27e8U+{code:04X}\u27e9"


def cut(text: str, limit_chars: int) -> str:
    """At most so many characters; an ellipsis says that there were more."""
    return text if len(text) <= limit_chars else f"{text[: limit_chars - 1]}…"


def plain(value: object) -> str:
    """Any JSON value as text."""
    if isinstance(value, str):
        return value
    return NOTHING if value is None else json.dumps(value, ensure_ascii=False)


def figure(value: object) -> float | None:
    """A number that can be reckoned with, None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -1e18 < value < 1e18 and math.isfinite(value) else None


def who(value: object) -> str:
    """Who decided: a user's name; or the hash of a token, with the name that it was given."""
    if not isinstance(value, Mapping):
        return plain(value)
    name, token = value.get("name"), value.get("token")
    known = "" if name is None else plain(name)
    told = "" if token is None else f"token {plain(token)}"
    return f"{known} ({told})" if known and told else known or told or NOTHING


# ---- figures ----------------------------------------------------------------------------------


def span(seconds: float | None) -> str:
    """A length of time, as `times.span` has it."""
    return NOTHING if seconds is None else times.span(seconds)


def count(value: float | None) -> str:
    """A count with its thousands apart."""
    if value is None:
        return NOTHING
    text = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
    return text.replace(",", _THIN)


def short(value: object) -> str:
    """A count in three digits or so: 950, 12.3k, 169k, 2.41M."""
    rest = figure(value)
    if rest is None:
        return NOTHING
    for unit, word in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rest >= unit * 0.9995:
            share = rest / unit
            return f"{share:.0f}{word}" if share >= 99.5 else f"{share:.3g}{word}"
    return f"{rest:.0f}"


def money(value: float | None) -> str:
    """US dollars: cents, and more of them where it is less than one."""
    if value is None:
        return NOTHING
    return f"${value:,.2f}" if value >= 0.095 or value == 0 else f"${value:.4f}"


def size(value: float | None) -> str:
    """Bytes in the unit that fits."""
    if value is None:
        return NOTHING
    rest, unit = float(value), 0
    while abs(rest) >= 1023.5 and unit < len(_UNITS) - 1:
        rest, unit = rest / 1024, unit + 1
    return (
        f"{rest:.0f} {_UNITS[unit]}" if unit == 0 or rest >= 99.5 else f"{rest:.1f} {_UNITS[unit]}"
    )


def metric(name: str, value: object) -> str:
    """A figure of `metrics`, by what its name ends in."""
    known = figure(value)
    if known is None:
        return cut(plain(value), 200)
    if name.endswith("_usd"):
        return money(known)
    if name.endswith("_bytes"):
        return size(known)
    if name.endswith("_ms"):
        return span(known / 1000)
    return span(known) if name.endswith("_s") else count(known)


# ---- moments ----------------------------------------------------------------------------------


def moment(text: object) -> datetime | None:
    """The moment that a document tells, None where it tells none."""
    if not isinstance(text, str):
        return None
    try:
        return times.moment_of(text)
    except (ValueError, OverflowError):
        return None


def clock(when: datetime | None) -> str:
    """A moment for people."""
    return NOTHING if when is None else when.strftime("%Y-%m-%d %H:%M:%S")


def machine(when: datetime) -> str:
    """A moment as HTML's `time` element takes it."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


def between_s(start: datetime | None, end: datetime | None) -> float | None:
    """Seconds from one to the other; None where one is not known. Never less than 0."""
    if start is None or end is None:
        return None
    return max(0.0, (end - start) / timedelta(seconds=1))


# ---- statuses ---------------------------------------------------------------------------------

_TONES = {
    "success": "good",
    "done": "good",
    "failed": "bad",
    "timeout": "bad",
    "needs_human": "waits",
    "awaiting_approval": "waits",
    "held": "waits",
    "parked": "waits",
    "retryable": "waits",
    "retrying": "waits",
    "running": "runs",
}


def tone(status: str) -> str:
    """Which colour a status has: the class of an element, one of five words of ours."""
    return _TONES.get(status, "still")
