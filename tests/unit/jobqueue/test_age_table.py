"""The shape of a queue by age: a job is in one column, and the columns meet without a gap."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from click import BadParameter
from hypothesis import given
from hypothesis import strategies as st

from agentorch.commands.duration import Span
from agentorch.core.job import Key
from agentorch.jobqueue import age_table

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def column(age: timedelta) -> str:
    key = Key(5, NOW - age, "job-12345678")
    found = age_table.shape([("row", age_table.submission_time(str(key)))], NOW)
    return age_table.COLUMNS[list(found["row"]).index(1)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-60, "<5m"),  # a clock that was put back
        (0, "<5m"),
        (299.999999, "<5m"),
        (300, "<20m"),
        (1200, "<1h"),
        (3600, "<6h"),
        (6 * 3600, "<1d"),
        (86400, "<7d"),
        (7 * 86400 - 0.000001, "<7d"),
        (7 * 86400, "7d+"),
        (20_000 * 86400, "7d+"),
    ],
)
def test_each_age_has_its_column(seconds: float, expected: str) -> None:
    assert column(timedelta(seconds=seconds)) == expected


@given(st.floats(0, 40 * 86400))
def test_names_say_what_times_would(seconds: float) -> None:
    age = timedelta(seconds=seconds)
    bounds = [*age_table.BOUNDS_S.items()]
    told = next((name for name, bound in bounds if age < timedelta(seconds=bound)), age_table.REST)
    assert column(age) == told


def test_the_table_has_its_sums_first_and_its_columns_aligned() -> None:
    young, old = (age_table.stamp(NOW - timedelta(days=days)) for days in (0, 30))
    found = age_table.shape([("held", young), ("held", old), ("awaiting_approval", old)], NOW)
    assert age_table.lines(found) == [
        "                   total  <5m  <20m  <1h  <6h  <1d  <7d  7d+",
        "TOTAL                  3    1     0    0    0    0    0    2",
        "held                   2    1     0    0    0    0    0    1",
        "awaiting_approval      1    0     0    0    0    0    0    1",
    ]
    assert age_table.document("state", "held", found["held"])["7d+"] == 1


def test_an_empty_queue_has_a_shape() -> None:
    assert age_table.lines({})[1].split() == ["TOTAL", *["0"] * 8]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7200), ("3d", 259200), ("0s", 0)]
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert Span().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "m", "1.5h", "-1h", "1w", "1h30m", "\u0661h", "1" * 30 + "d"]
)
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(BadParameter, match="no length of time: 90s"):
        Span().convert(text, None, None)
