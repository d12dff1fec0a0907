"""Cron expressions, crontab(5): when they run, and the same as systemd.time(7) says it. Pure.

Five fields in UTC: minute, hour, day of month, month, day of week. The rule of the two days is
that of Vixie's cron, and so of Debian's and cronie: where one of the two fields begins with `*`
(`*/2` too) a day has to be in both; else it has to be in one of them (POSIX: crontab).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import count, product

from agentorch.core.errors import Invalid

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# as systemd and Python count them; cron's 0 and 7 are Sunday
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class _Field:
    name: str
    least: int
    most: int
    names: Mapping[str, int] = field(default_factory=dict)


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, {name: place for place, name in enumerate(MONTHS, 1)}),
    _Field(
        "day of week", 0, 7, {name.lower(): n for n, name in enumerate(WEEKDAYS, 1)} | {"sun": 0}
    ),
)


@dataclass(frozen=True)
class Cron:
    """A cron expression, to the minute. `weekdays` counts from Monday, 0.

    `either`: a day need be in one of `days` and `weekdays` only.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def runs_on(self, day: date) -> bool:
        """Return whether it runs on this day at all."""
        both = (day.day in self.days, day.weekday() in self.weekdays)
        return day.month in self.months and (any(both) if self.either else all(both))

    def next_after(self, moment: datetime) -> datetime:
        """Return the first time that is later than this one."""
        least = _minute_of(moment) + _MINUTE
        return next(one for one in self._walk(least.date(), 1) if one >= least)

    def last_until(self, moment: datetime) -> datetime:
        """Return the last time that is not later than this one."""
        most = _minute_of(moment)
        return next(one for one in self._walk(most.date(), -1) if one <= most)

    def _walk(self, first: date, way: int) -> Iterator[datetime]:
        clock = sorted(product(self.hours, self.minutes), reverse=way < 0)
        for day in map(date.fromordinal, count(first.toordinal(), way)):
            if self.runs_on(day):
                for hour, minute in clock:
                    yield datetime.combine(day, time(hour, minute), UTC)

    def on_calendar(self) -> tuple[str, ...]:
        """Return the values of OnCalendar= that elapse at these times, each once.

        One of them asks for all that it names, so either-or takes two.
        """
        weekdays = _calendar_component(self.weekdays, 0, 6, WEEKDAYS)
        months = _calendar_component(self.months, 1, 12)
        days = _calendar_component(self.days, 1, 31)
        hours = _calendar_component(self.hours, 0, 23)
        clock = f"{hours}:{_calendar_component(self.minutes, 0, 59)}:00 UTC"
        prefix = "" if weekdays == "*" else f"{weekdays} "
        if not self.either:
            return (f"{prefix}*-{months}-{days} {clock}",)
        every = f"{prefix}*-{months}-* {clock}"
        return (f"*-{months}-{days} {clock}", every) if self._has_a_date() else (every,)

    def never_runs(self) -> bool:
        """Return whether there is no such day, as there is no 30 February.

        Every date falls on every day of the week in time.
        """
        return not self.either and not self._has_a_date()

    def _has_a_date(self) -> bool:
        return any(min(self.days) <= _LONGEST[month - 1] for month in self.months)


def parse(text: str) -> Cron:
    """Return the schedule of an expression. Raises Invalid with every problem and its field."""
    words = NAMED.get(text.strip().lower(), text).split()
    if len(words) != len(_FIELDS):
        raise Invalid([_no_expression(text, words)])
    found: list[frozenset[int]] = []
    problems = []
    for place, (one, word) in enumerate(zip(_FIELDS, words, strict=True), 1):
        try:
            found.append(_values(one, word))
        except ValueError as problem:
            problems.append(f"field {place} ({one.name}): {problem}")
    if problems:
        raise Invalid(problems)
    minutes, hours, days, months, cron_days = found
    weekdays = frozenset((day - 1) % 7 for day in cron_days)
    either = not words[2].startswith("*") and not words[4].startswith("*")
    cron = Cron(minutes, hours, days, months, weekdays, either)
    if cron.never_runs():
        raise Invalid([f"never runs: month {words[3]} has no day {words[2]}"])
    return cron


def _no_expression(text: str, words: list[str]) -> str:
    if text.strip().startswith("@"):
        return f"{text.strip()!r} is not one of {', '.join(NAMED)}"
    return f"expected 5 fields, found {len(words)}: minute hour day-of-month month day-of-week"


_RANGE = re.compile(
    r"(?:(?P<all>\*)|(?P<first>[A-Za-z0-9]+)(?:-(?P<last>[A-Za-z0-9]+))?)(?:/(?P<step>\d{1,3}))?",
    re.ASCII,
)


def _values(one: _Field, word: str) -> frozenset[int]:
    """Return what a field names. Raises ValueError."""
    return frozenset(value for part in word.split(",") for value in _range(one, part))


def _range(one: _Field, part: str) -> range:
    match = _RANGE.fullmatch(part)
    if match is None:
        raise ValueError(f"{part!r}: expected *, a value or a range, each with /STEP or without")
    first = one.least if match["all"] else _number(one, match["first"])
    if match["all"] or (match["step"] and not match["last"]):
        last = one.most  # as cronie has it: N/STEP goes on to the end
    else:
        last = _number(one, match["last"] or match["first"])
    if last < first:
        raise ValueError(f"{part!r} wraps around: write it as a list, or as two ranges")
    step = int(match["step"] or 1)
    # a larger step is an hour of 60 minutes, written */60, that would run at minute 0 alone
    if not 1 <= step <= max(1, one.most - one.least):
        raise ValueError(f"{part!r}: expected a step from 1 to {one.most - one.least}")
    return range(first, last + 1, step)


def _number(one: _Field, word: str) -> int:
    if word.lower() in one.names:
        return one.names[word.lower()]
    if not word.isdecimal() or not one.least <= int(word[:9]) <= one.most:
        names = f" or a name like {next(iter(one.names))}" if one.names else ""
        raise ValueError(f"{word!r}: expected {one.least} to {one.most}{names}")
    return int(word)


def _minute_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(second=0, microsecond=0)


def _calendar_component(
    values: frozenset[int], least: int, most: int, names: tuple[str, ...] = ()
) -> str:
    """Return values as a component of OnCalendar=: `*`, or a list with ranges where three
    follow.
    """
    if values >= set(range(least, most + 1)):
        return "*"

    def name(value: int) -> str:
        return names[value] if names else f"{value:02}"

    words = []
    for first, last in _runs(sorted(values)):
        if last - first > 1:
            words.append(f"{name(first)}..{name(last)}")
        else:
            words += [name(value) for value in range(first, last + 1)]
    return ",".join(words)


def _runs(values: list[int]) -> Iterator[tuple[int, int]]:
    """Values that follow on each other, as first and last."""
    first = last = values[0]
    for value in values[1:]:
        if value > last + 1:
            yield first, last
            first = value
        last = value
    yield first, last
