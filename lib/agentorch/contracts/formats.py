"""The meaning of the contracts' patterns and formats, for all who check them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from urllib.parse import urlsplit

from agentorch.core.times import moment_of

_MOMENT = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,6})?\d*([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_URI = re.compile(r"https?://[^\s/?#@\\]+([/?#][^\s\\]*)?", re.ASCII | re.IGNORECASE)


@cache
def pattern(expression: str) -> re.Pattern[str]:
    """Return a contract's pattern, to be searched for.

    `$` of re also matches before a last newline; a name with one is not that name.
    """
    ends = expression.endswith("$")
    return re.compile(expression.removesuffix("$") + r"\Z" if ends else expression)


def is_moment(value: object) -> bool:
    """Return whether it is an RFC 3339 date-time that there is; what is no text is another's to
    judge.
    """
    if not isinstance(value, str):
        return True
    if not _MOMENT.fullmatch(value):
        return False
    try:
        moment_of(re.sub(r"(\.\d{6})\d+", r"\1", value))
    except (ValueError, OverflowError):  # 30 February, year 0
        return False
    return True


def is_uri(value: object) -> bool:
    """Return whether it is an http(s) URI; what is no text is another's to judge."""
    if not isinstance(value, str):
        return True
    if not (value.isascii() and value.isprintable() and _URI.fullmatch(value)):
        return False
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:  # half an IPv6 address, a port beyond 65535
        return False
    return bool(parts.hostname) and port != 0


FORMATS: Mapping[str, Callable[[object], bool]] = {"date-time": is_moment, "uri": is_uri}
"""The formats that are asserted."""
