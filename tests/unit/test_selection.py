"""A selection is bounded, in order, and the same every time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.selection import evenly_spread


@given(st.integers(0, 300), st.integers(1, 40))
def test_it_is_spread_over_all_of_them(length: int, most: int) -> None:
    chosen = evenly_spread(range(length), most)
    assert len(chosen) == min(length, most)
    assert list(chosen) == sorted(set(chosen))
    if length and most > 1:
        assert (chosen[0], chosen[-1]) == (0, length - 1)


def test_a_selection_of_few() -> None:
    assert evenly_spread("abcdefghi", 3) == ["a", "e", "i"]
