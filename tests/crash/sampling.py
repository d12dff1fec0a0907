"""Which points of a protocol are tried: some, and others tomorrow, so that all are in some days.

CRASH_POINTS=all tries all; TEST_DAY, which a run that failed tells, repeats what it tried.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

EVERY_POINT = os.environ.get("CRASH_POINTS") == "all"
USUALLY = 12

T = TypeVar("T")


def sampled(found: Sequence[T], most: int = USUALLY) -> Sequence[T]:
    """At most so many of a protocol's points, today's; with CRASH_POINTS=all, all of them."""
    return found if EVERY_POINT else turn(found, most, int(os.environ["TEST_DAY"]))


def turn(found: Sequence[T], most: int, day: int) -> Sequence[T]:
    """At most `most` of them, evenly spread; all have their turn on days that follow. Pure."""
    step = -(-len(found) // most) or 1
    return found[day % step :: step]
