"""The time line of a job: places of attempts, in per cent of its width. Pure.

Long stretches in which nothing ran (a night in the queue, three days until an approval) are drawn
as a gap of fixed width with their length beside it; otherwise nothing else could be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

BREAK_PERCENT = 7.0
MIN_PERCENT = 0.5
MAX_BREAKS = 6
_LONG = 0.35  # of all that would be drawn with it
_TICKS_S = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 14400, 21600, 43200, 86400),
)
_MOST_TICKS = 5

Span = tuple[datetime, datetime]


@dataclass(frozen=True)
class Stretch:
    """A part of the line: from one moment to another, from one place to another."""

    start: datetime
    end: datetime
    left: float
    width: float
    is_break: bool

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return (self.end - self.start) / timedelta(seconds=1)

    @property
    def middle(self) -> float:
        """The place of its label."""
        return self.left + self.width / 2


@dataclass(frozen=True)
class Scale:
    """The whole line."""

    stretches: tuple[Stretch, ...]

    def position(self, when: datetime) -> float:
        """Return the place of a moment."""
        for one in self.stretches:
            if when <= one.end:
                share = (when - one.start) / (one.end - one.start) if one.seconds else 0.0
                return one.left + max(0.0, share) * one.width
        return 100.0

    def bar(self, start: datetime, end: datetime) -> tuple[float, float]:
        """Return the left edge and the width of a bar, which is always visible and on the line."""
        left, right = self.position(start), self.position(max(start, end))
        left = min(left, 100.0 - MIN_PERCENT)
        return round(left, 3), round(max(right - left, MIN_PERCENT), 3)

    @property
    def breaks(self) -> tuple[Stretch, ...]:
        """The stretches that are drawn as a gap."""
        return tuple(one for one in self.stretches if one.is_break)

    def ticks(self) -> list[tuple[float, float]]:
        """Return places with their seconds since the beginning; none where the line has breaks."""
        if self.breaks or not self.stretches:
            return []
        first = self.stretches[0].start
        whole_s = (self.stretches[-1].end - first) / timedelta(seconds=1)
        step = next((one for one in _TICKS_S if whole_s / one <= _MOST_TICKS), None)
        if step is None:
            return []
        times = [step * number for number in range(1, _MOST_TICKS + 1) if step * number < whole_s]
        return [(round(self.position(first + timedelta(seconds=one)), 3), one) for one in times]


def scale(spans: Iterable[Span]) -> Scale:
    """Return a line on which all of these fit; a moment is a span without a length."""
    busy = merge_spans(spans)
    if not busy:
        return Scale(())
    gaps = [(one[1], two[0]) for one, two in pairwise(busy)]
    long = _long(busy, gaps)
    parts: list[tuple[Span, bool]] = []
    for number, one in enumerate(busy):
        parts.append((one, False))
        if number < len(gaps):
            parts.append((gaps[number], gaps[number] in long))
    return Scale(_place_stretches(parts))


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Return spans that cover the same time without overlaps, in order."""
    found: list[Span] = []
    for start, end in sorted((start, max(start, end)) for start, end in spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _long(busy: Sequence[Span], gaps: Sequence[Span]) -> set[Span]:
    """Return the gaps that would leave too little room for everything else."""
    lengths = sorted(gaps, key=_length_s, reverse=True)
    long: set[Span] = set()
    rest_s = sum(map(_length_s, busy)) + sum(map(_length_s, gaps))
    for gap in lengths[:MAX_BREAKS]:
        if _length_s(gap) <= _LONG * rest_s:
            break
        long.add(gap)
        rest_s -= _length_s(gap)
    return long


def _length_s(span: Span) -> float:
    return (span[1] - span[0]) / timedelta(seconds=1)


def _place_stretches(parts: Sequence[tuple[Span, bool]]) -> tuple[Stretch, ...]:
    breaks = sum(is_break for _, is_break in parts)
    room = 100.0 - breaks * BREAK_PERCENT
    shown_s = sum(_length_s(span) for span, is_break in parts if not is_break)
    left, found = 0.0, []
    for span, is_break in parts:
        share = _length_s(span) / shown_s if shown_s else 1 / len(parts)
        width = BREAK_PERCENT if is_break else share * room
        found.append(Stretch(*span, left, width, is_break))
        left += width
    return tuple(found)
