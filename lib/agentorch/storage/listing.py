"""The names in a directory, one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path


def names_in(directory: Path) -> Iterator[str]:
    """Yield the names in a directory, one by one: a million of them are not held at once."""
    with os.scandir(directory) as entries:
        yield from map(attrgetter("name"), entries)
