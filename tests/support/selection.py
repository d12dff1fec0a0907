"""The choice among many alike: the same every time. TEST_ALL=1 (`make test-all`) takes all."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from typing import TypeVar

EVERYTHING = "TEST_ALL" in os.environ
USUALLY = 8

T = TypeVar("T")


def selected(found: Sequence[T], most: int = USUALLY) -> Sequence[T]:
    """Return at most so many of a protocol's points; with TEST_ALL, all of them."""
    return found if EVERYTHING else evenly_spread(found, most)


def one_for(found: Sequence[T], name: str) -> Sequence[T]:
    """Return one of them, another for some other names; with TEST_ALL, all of them."""
    if EVERYTHING:
        return found
    place = zlib.crc32(name.encode()) % len(found)
    return found[place : place + 1]


def evenly_spread(found: Sequence[T], most: int) -> Sequence[T]:
    """Return at most `most` of them, evenly spread, the first and the last among them. Pure."""
    if len(found) <= most:
        return found
    if most == 1:
        return found[:1]
    return [found[place * (len(found) - 1) // (most - 1)] for place in range(most)]
