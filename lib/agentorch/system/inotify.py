"""inotify(7) through the C library: to wait for an event and never for the clock.

Python has no binding of its own; three calls of libc are all that is needed.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from types import TracebackType
from typing import Self

_libc = ctypes.CDLL(None, use_errno=True)
_HEADER = struct.Struct("iIII")


class Mask(IntFlag):
    """The events that are used here."""

    MODIFY = 0x2
    CLOSE_WRITE = 0x8
    CLOSE_NOWRITE = 0x10
    MOVED_TO = 0x80
    CREATE = 0x100
    OVERFLOW = 0x4000


@dataclass(frozen=True)
class Event:
    """Something happened to `name` in the watched directory (empty for the watched file itself)."""

    watch: int
    mask: Mask
    name: str


class Inotify:
    """A queue of events; `fileno()` becomes readable when there are some."""

    def __init__(self) -> None:
        self._descriptor = _check(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._descriptor

    def watch(self, path: Path, mask: Mask) -> int:
        """Start watching; the number that its events carry. Raises OSError (ENOSPC: too many)."""
        found = _libc.inotify_add_watch(self._descriptor, os.fsencode(path), int(mask))
        return _check(found, str(path))

    def forget(self, watch: int) -> None:
        """End a watch; its directory may be gone already."""
        _libc.inotify_rm_watch(self._descriptor, watch)

    def read(self) -> Iterator[Event]:
        """Yield the events that are there now, none when there are none. Never waits."""
        try:
            content = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        place = 0
        while place < len(content):
            watch, mask, _, length = _HEADER.unpack_from(content, place)
            place += _HEADER.size
            name = content[place : place + length].rstrip(b"\0")
            place += length
            yield Event(watch, Mask(mask & 0xFFFF), os.fsdecode(name))

    def close(self) -> None:
        """End all watches; also what a child does with a descriptor that it must not keep."""
        os.close(self._descriptor)


def _check(result: int, path: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result
