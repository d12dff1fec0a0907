"""What is not tried today is tried within days."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.sampling import turn


@given(st.integers(0, 300), st.integers(1, 40), st.integers(0, 30000))
def test_all_have_their_turn(length: int, most: int, first_day: int) -> None:
    found = range(length)
    days = -(-length // most)
    turns = [turn(found, most, day) for day in range(first_day, first_day + days)]
    assert all(0 < len(tried) <= most for tried in turns)
    assert sorted(point for tried in turns for point in tried) == list(found)
