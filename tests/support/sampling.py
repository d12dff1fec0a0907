"""Which of many alike are tried: some, and others tomorrow, so that all are in some days.

TEST_ALL=1 tries all; TEST_DAY, which a run that failed tells, repeats what it tried.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from typing import TypeVar

EVERYTHING = "TEST_ALL" in os.environ
USUALLY = 8

T = TypeVar("T")


def sampled(found: Sequence[T], most: int = USUALLY) -> Sequence[T]:
    """At most so many of a protocol's points, today's; with TEST_ALL, all of them."""
    return found if EVERYTHING else turn(found, most, int(os.environ["TEST_DAY"]))


def todays(found: Sequence[T], name: str) -> Sequence[T]:
    """One of them; whose name is another may have another one. With TEST_ALL, all of them."""
    if EVERYTHING:
        return found
    place = (zlib.crc32(name.encode()) + int(os.environ["TEST_DAY"])) % len(found)
    return found[place : place + 1]


def turn(found: Sequence[T], most: int, day: int) -> Sequence[T]:
    """At most `most` of them, evenly spread; all have their turn on days that follow. Pure."""
    step = -(-len(found) // most) or 1
    return found[day % step :: step]
