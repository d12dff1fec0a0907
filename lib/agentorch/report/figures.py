"""The texts of figures and moments on a page, and text made safe to read. Pure."""

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
# Control characters except tab and newline; characters without width, or that turn the reading
# direction; tags; surrogates; noncharacters. With them a page would not show what it contains.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\ufdd0-\ufdef"
    f"\U000e0000-\U000e007f{_NONCHARACTERS}]"
)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def visible(text: str) -> str:
    """Return `text` with a visible symbol in place of each invisible character."""
    return _HIDDEN.sub(_picture, text.replace("\r\n", "\n"))


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\u27e8U+{code:04X}\u27e9"


def cut(text: str, limit_chars: int) -> str:
    """Return at most so many characters; an ellipsis shows that there were more."""
    return text if len(text) <= limit_chars else f"{text[: limit_chars - 1]}…"


def plain(value: object) -> str:
    """Return any JSON value as text."""
    if isinstance(value, str):
        return value
    return NOTHING if value is None else json.dumps(value, ensure_ascii=False)


def figure(value: object) -> float | None:
    """Return a finite number of sensible size, None for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -1e18 < value < 1e18 and math.isfinite(value) else None


def person(value: object) -> str:
    """Return the person of a decision: a user's name, or a token's hash with the holder's name."""
    if not isinstance(value, Mapping):
        return plain(value)
    name, token = value.get("name"), value.get("token")
    known = "" if name is None else plain(name)
    by_token = "" if token is None else f"token {plain(token)}"
    return f"{known} ({by_token})" if known and by_token else known or by_token or NOTHING


# ---- figures ----------------------------------------------------------------------------------


def span(seconds: float | None) -> str:
    """Return a length of time as `times.span` spells it."""
    return NOTHING if seconds is None else times.span(seconds)


def count(value: float | None) -> str:
    """Return a count with its thousands set apart."""
    if value is None:
        return NOTHING
    text = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
    return text.replace(",", _THIN)


def short(value: object) -> str:
    """Return a count in about three digits: 950, 12.3k, 169k, 2.41M."""
    rest = figure(value)
    if rest is None:
        return NOTHING
    for unit, word in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rest >= unit * 0.9995:
            share = rest / unit
            return f"{share:.0f}{word}" if share >= 99.5 else f"{share:.3g}{word}"
    return f"{rest:.0f}"


def money(value: float | None) -> str:
    """Return US dollars with cents; small amounts have two more digits."""
    if value is None:
        return NOTHING
    return f"${value:,.2f}" if value >= 0.095 or value == 0 else f"${value:.4f}"


def size(value: float | None) -> str:
    """Return a number of bytes in the unit that fits."""
    if value is None:
        return NOTHING
    rest, unit = float(value), 0
    while abs(rest) >= 1023.5 and unit < len(_UNITS) - 1:
        rest, unit = rest / 1024, unit + 1
    return (
        f"{rest:.0f} {_UNITS[unit]}" if unit == 0 or rest >= 99.5 else f"{rest:.1f} {_UNITS[unit]}"
    )


def metric(name: str, value: object) -> str:
    """Return a figure of `metrics` in the unit that the end of its name says."""
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
    """Return the moment of a document's field, None where it is not one."""
    if not isinstance(text, str):
        return None
    try:
        return times.moment_of(text)
    except (ValueError, OverflowError):
        return None


def clock(when: datetime | None) -> str:
    """Return a moment as people read it."""
    return NOTHING if when is None else when.strftime("%Y-%m-%d %H:%M:%S")


def machine(when: datetime) -> str:
    """Return a moment as HTML's `time` element needs it."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


def between_s(start: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds between two moments, never less than 0; None where one is unknown."""
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
    """Return the CSS class for the colour of a status; it is one of five fixed words."""
    return _TONES.get(status, "still")
