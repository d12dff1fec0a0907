"""A length of time as people write it on a command line: 90s, 15m, 2h, 3d."""

from __future__ import annotations

import re

import click

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"([0-9]{1,9})([smhd])")


class Span(click.ParamType):  # type: ignore[type-arg]  # no class of Debian's click takes one
    """Seconds, from a number and its unit."""

    name = "age"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds. Fails, as click does, where the text is no length of time."""
        if isinstance(value, int | float):
            return value
        match = _SPAN.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is no length of time: 90s, 15m, 2h, 3d", param, ctx)
        return float(int(match[1]) * UNITS_S[match[2]])
