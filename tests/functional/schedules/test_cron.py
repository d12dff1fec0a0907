"""Cron expressions: against croniter over years, against systemd itself, and what is refused."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from croniter import croniter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentorch.core.errors import Invalid
from agentorch.schedules.cron import MONTHS, NAMED, Cron, parse
from agentorch.systemd import on_calendar

START = datetime(2023, 11, 5, 6, 7, 30, tzinfo=UTC)
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
RUNS = 40


def one_field(least: int, most: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    """A field: lists of values, ranges and steps, as people spell them."""

    def spelled(value: int) -> str:
        has_name = value % 2 == 1 and value - least < len(names)
        return names[value - least].title() if has_name else str(value)

    value = st.integers(least, most)
    # croniter takes 0-0 of the days of the week for all of them
    pair = st.lists(value, min_size=2, max_size=2, unique=True).map(sorted)
    step = st.integers(1, most - least)
    ranged = pair.map(lambda both: f"{both[0]}-{both[1]}")
    part = st.one_of(
        value.map(spelled),
        ranged,
        st.tuples(ranged, step).map(lambda both: f"{both[0]}/{both[1]}"),
    )
    parts = st.lists(part, min_size=1, max_size=3).map(",".join)
    # a star that is not the first counts as one for croniter, and as all values for cron
    stars = st.one_of(st.just("*"), step.map(lambda n: f"*/{n}"))
    return st.one_of(parts, stars, st.tuples(stars, parts).map(",".join))


EXPRESSIONS = st.tuples(
    one_field(0, 59),
    one_field(0, 23),
    one_field(1, 31),
    one_field(1, 12, MONTHS),
    one_field(0, 7, DAYS),
).map(" ".join)


# some minute of ninety years
MOMENTS = st.integers(0, 90 * 366 * 1440).map(
    lambda minutes: datetime(1999, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)


def parsed(expression: str) -> Cron | None:
    """None: it never runs."""
    try:
        return parse(expression)
    except Invalid as invalid:
        if "never runs" not in str(invalid):
            raise
        return None


def times(cron: Cron, start: datetime, most: int) -> list[datetime]:
    found = [start]
    for _ in range(most):
        found.append(cron.next_after(found[-1]))
    return found[1:]


def theirs(expression: str, start: datetime, most: int) -> list[datetime]:
    """What croniter says, told to follow the rule of cron for fields that begin with a star."""
    other = croniter(expression, start, implement_cron_bug=True, max_years_between_matches=100)
    return list(islice(other.all_next(datetime), most))


@settings(max_examples=200)
@given(EXPRESSIONS, MOMENTS)
@example("0 0 13 * 5", datetime(2026, 1, 1, tzinfo=UTC))
@example("0 0 */2 * 1", datetime(2026, 1, 1, tzinfo=UTC))
@example("0 0 1-31/2 * 1", datetime(2026, 1, 1, tzinfo=UTC))
@example("0 0 29 2 *", datetime(1999, 1, 1, tzinfo=UTC))
@example("0 0 29 2 */7", datetime(2026, 1, 1, tzinfo=UTC))
@example("0 0 31 * 1-5/2", datetime(2026, 1, 1, tzinfo=UTC))
@example("0 0 30 2 mon", datetime(2026, 1, 1, tzinfo=UTC))
@example("0 0 * * 7", datetime(2026, 1, 1, tzinfo=UTC))
@example("59 23 31 12 *", datetime(2026, 12, 31, 23, 59, tzinfo=UTC))
def test_the_next_times_are_those_of_croniter(expression: str, moment: datetime) -> None:
    cron = parsed(expression)
    if cron is not None:
        assert times(cron, moment, RUNS) == theirs(expression, moment, RUNS)


@given(EXPRESSIONS, MOMENTS)
def test_the_last_time_is_the_one_that_has_no_later(expression: str, moment: datetime) -> None:
    if (cron := parsed(expression)) is not None:
        last = cron.last_until(moment)
        assert last <= moment < cron.next_after(last)
        assert cron.next_after(last - timedelta(minutes=1)) == last
        assert cron.last_until(last) == last


# ---- systemd ----------------------------------------------------------------------------------

SAMPLE = (
    "* * * * *",
    "*/7 * * * *",
    "0 3 * * *",
    "5,35 9-17 * * mon-fri",
    "0 0 13 * 5",
    "0 0 */2 * 1",
    "0 12 1,15 1-6/2 sun",
    "30 4 29 2 *",
    "0 0 31 * *",
    "0 0 30 2 mon",
    "0 0 * 2 1",
    "59 23 31 12 5-7",
    "0 0 1-7 * 1-7",
    "@weekly",
    "@yearly",
)


def elapses(cron: Cron, start: datetime, most: int) -> list[datetime]:
    """When a timer with these events elapses: at each time that one of them names, once."""
    base = f"--base-time={start:%Y-%m-%d %H:%M:%S} UTC"
    found: set[datetime] = set()
    for event in cron.on_calendar():
        *argv, last, word = on_calendar.calendar_argv(event, most)
        asked = subprocess.run(
            [*argv, base, last, word], capture_output=True, text=True, check=True
        )
        found |= set(on_calendar.times_in(asked.stdout))
    return sorted(found)[:most]


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("expression", SAMPLE)
def test_a_timer_elapses_at_the_same_times(expression: str) -> None:
    cron = parse(expression)
    assert elapses(cron, START, 25) == times(cron, START, 25)


@pytest.mark.needs("systemd-analyze")
@settings(max_examples=25)
@given(EXPRESSIONS)
def test_a_timer_elapses_at_the_times_of_any_expression(expression: str) -> None:
    if (cron := parsed(expression)) is not None:
        # a leap day on a day of the week is looked for over no more years than systemd goes
        expected = [one for one in times(cron, START, 5) if one.year < 2100]
        assert elapses(cron, START, 5)[: len(expected)] == expected


def test_the_events_of_either_or() -> None:
    assert parse("0 0 13 * 5").on_calendar() == (
        "*-*-13 00:00:00 UTC",
        "Fri *-*-* 00:00:00 UTC",
    )
    assert parse("0 0 */2 * 5").on_calendar() == (
        "Fri *-*-01,03,05,07,09,11,13,15,17,19,21,23,25,27,29,31 00:00:00 UTC",
    )
    assert parse("*/15 9-17 * * mon-fri").on_calendar() == (
        "Mon..Fri *-*-* 09..17:00,15,30,45:00 UTC",
    )


# ---- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "expected 5 fields, found 0"),
        ("* * * *", "expected 5 fields, found 4"),
        ("0 0 * * * *", "expected 5 fields, found 6"),
        ("@reboot", "'@reboot' is not one of @yearly"),
        ("60 * * * *", "field 1 (minute): '60': expected 0 to 59"),
        ("-1 * * * *", "field 1 (minute): '-1': expected *, a value or a range"),
        ("* 24 * * *", "field 2 (hour): '24': expected 0 to 23"),
        ("* * 0 * *", "field 3 (day of month): '0': expected 1 to 31"),
        ("* * L * *", "field 3 (day of month): 'L': expected 1 to 31"),
        ("* * ? * *", "field 3 (day of month): '?'"),
        ("* * * 13 *", "field 4 (month): '13': expected 1 to 12 or a name like jan"),
        ("* * * * 8", "field 5 (day of week): '8': expected 0 to 7 or a name like mon"),
        ("* * * * mon#2", "field 5 (day of week): 'mon#2'"),
        ("* 22-4 * * *", "field 2 (hour): '22-4' wraps around"),
        ("* * * * fri-sun", "field 5 (day of week): 'fri-sun' wraps around"),
        ("*/0 * * * *", "field 1 (minute): '*/0': expected a step from 1 to 59"),
        ("*/60 * * * *", "field 1 (minute): '*/60': expected a step from 1 to 59"),
        ("1,,2 * * * *", "field 1 (minute): ''"),
        ("\N{ARABIC-INDIC DIGIT ONE} * * * *", "field 1 (minute): "),
        ("0 0 30 2 *", "never runs: month 2 has no day 30"),
        ("0 0 31 4,6,9,11 *", "never runs: month 4,6,9,11 has no day 31"),
        ("0 0 30 2 */2", "never runs"),
    ],
)
def test_what_is_no_expression(expression: str, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(expression)
    assert words in str(refused.value)


def test_every_field_that_is_wrong_is_named() -> None:
    with pytest.raises(Invalid) as refused:
        parse("60 24 0 13 8")
    assert [problem[:7] for problem in refused.value.problems] == [
        f"field {n}" for n in range(1, 6)
    ]


@pytest.mark.parametrize("name", NAMED)
def test_the_named_ones(name: str) -> None:
    assert parse(name) == parse(name.upper()) == parse(NAMED[name])


def test_sunday_has_two_numbers_and_a_name() -> None:
    assert parse("0 0 * * 0") == parse("0 0 * * 7") == parse("0 0 * * Sun")
    assert parse("0 0 * * 5-7").weekdays == {4, 5, 6}


def test_a_step_without_a_range_goes_to_the_end() -> None:
    assert parse("50/3 * * * *").minutes == {50, 53, 56, 59}
