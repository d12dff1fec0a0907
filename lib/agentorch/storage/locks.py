"""flock(2) on files that exist only for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def hold_lock(path: Path, *, wait: bool, owning: bool = True) -> Iterator[int | None]:
    """Hold an exclusive flock(2) on a file that is made when missing; yield its descriptor.

    Without `wait`, None when somebody else holds it. Who only asks (not `owning`) opens it for
    reading: to close that is no event for those who wait for the close of an owner's.
    """
    access = os.O_RDWR if owning else os.O_RDONLY
    descriptor = os.open(path, access | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        yield descriptor if lock(descriptor, wait=wait) else None
    finally:
        os.close(descriptor)


def lock(descriptor: int, *, wait: bool) -> bool:
    """Take the flock of an open file; False when somebody else has it and we don't wait."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
