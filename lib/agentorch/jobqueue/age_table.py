"""The shape of a queue: how many jobs are how old, in columns as qshape(1) of Postfix has them.

A name of a queue file holds the time of submission as text that sorts, so a job is put into its
column by comparing names: no file is read, and no time is parsed. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from agentorch.core.job import Key

# Each column holds what is younger than this, and not in one before it; the last one the rest.
BOUNDS_S: Mapping[str, int] = {
    "<5m": 300,
    "<20m": 1200,
    "<1h": 3600,
    "<6h": 6 * 3600,
    "<1d": 86400,
    "<7d": 7 * 86400,
}
REST = "7d+"
COLUMNS = (*BOUNDS_S, REST)
TOTAL = "total"

Shape = Mapping[str, Sequence[int]]


class Edges:
    """The moments between the columns, as the names of queue files spell moments."""

    def __init__(self, now: datetime) -> None:
        moments = [now - timedelta(seconds=bound) for bound in BOUNDS_S.values()]
        self._oldest_first = [stamp(moment) for moment in reversed(moments)]

    def column(self, submitted: str) -> int:
        """Return the column of a time of submission, as a name of a queue file spells it."""
        return len(self._oldest_first) - bisect_left(self._oldest_first, submitted)


def stamp(moment: datetime) -> str:
    """Return a moment as the names of queue files spell it: of two, the later one is the greater
    text.
    """
    return str(Key(0, moment.astimezone(UTC), ""))[2:].partition("-")[0]


def submission_time(name: str) -> str:
    """Return the time of submission in the name of a queue file."""
    return name[2:].partition("-")[0]


def shape(named: Iterable[tuple[str, str]], now: datetime) -> Shape:
    """Count per row and column of rows' names, each with a time of submission as text."""
    edges = Edges(now)
    counts = Counter((row, edges.column(moment)) for row, moment in named)
    rows = dict.fromkeys(row for row, _ in counts)
    return {row: [counts[row, number] for number in range(len(COLUMNS))] for row in rows}


def totals(found: Shape) -> list[int]:
    """Return the sums of the columns."""
    return [sum(column) for column in zip(*found.values(), strict=True)] or [0] * len(COLUMNS)


def lines(found: Shape) -> list[str]:
    """Return the shape as a table of plain text: the totals first, then each row."""
    rows = [("TOTAL", totals(found)), *found.items()]
    head = ["", TOTAL, *COLUMNS]
    cells = [head, *([name, str(sum(c)), *map(str, c)] for name, c in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells
    ]


def document(by: str, row: str, columns: Sequence[int]) -> dict[str, object]:
    """Return a row as a JSON object, its name under what rows are by."""
    return {by: row, TOTAL: sum(columns), **dict(zip(COLUMNS, columns, strict=True))}
