"""A runner's view of pending/: in order, bounded, never blind to what is there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentorch.runner.backlog import Backlog

NAMES = st.text("abc", min_size=1, max_size=4)


def test_nothing_is_known_before_the_first_listing() -> None:
    backlog = Backlog()
    assert backlog.stale
    assert backlog.take() is None


def test_names_come_in_order_and_those_that_arrive_are_merged_in() -> None:
    backlog = Backlog()
    backlog.take_listing(["c", "a"])
    backlog.add("b")
    assert [backlog.take() for _ in range(4)] == ["a", "b", "c", None]
    assert not backlog.stale


def test_a_listing_is_due_when_the_first_names_are_used_up() -> None:
    backlog = Backlog(kept=2)
    backlog.take_listing(["d", "c", "b", "a"])
    backlog.add("z")
    assert [backlog.take() for _ in range(3)] == ["a", "b", None]
    assert backlog.stale


def test_lost_events_make_a_listing_due() -> None:
    backlog = Backlog()
    backlog.take_listing([])
    backlog.lost_events()
    assert backlog.stale


@given(st.sets(NAMES), st.lists(NAMES, unique=True), st.integers(1, 5))
def test_whatever_arrives_the_first_of_all_names_is_next(
    there: set[str], arriving: list[str], kept: int
) -> None:
    backlog = Backlog(kept)
    disk = set(there)
    coming = [name for name in arriving if name not in there]
    taken = []
    while True:
        if backlog.stale:
            backlog.take_listing(disk)
        if coming:
            disk.add(coming[0])
            backlog.add(coming.pop(0))
        name = backlog.take()
        if name is None and not backlog.stale and not coming:
            break
        if name is not None and name in disk:
            assert name == min(disk)
            disk.remove(name)
            taken.append(name)
    assert not disk
    assert set(taken) == there | set(arriving)
