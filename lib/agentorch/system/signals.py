"""Signals as something to poll: a descriptor that is readable when one has come.

TERM and INT ask a step to end: TERM cancels the job, INT gives the step back. For a runner both
mean to leave now, HUP to finish the job first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Self


class Signals:
    """Collects signals from `wanted` while it is open; made anew after a fork."""

    def __init__(self, wanted: Iterable[signal.Signals]) -> None:
        self._wanted = tuple(wanted)
        self._came: list[signal.Signals] = []
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._note) for number in self._wanted}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _note(self, number: int, _: FrameType | None) -> None:
        self._came.append(signal.Signals(number))

    def fileno(self) -> int:
        """Readable while a signal that came was not cleared."""
        return self._reader

    def clear(self) -> None:
        """Make `fileno` unreadable until the next signal; what came stays known."""
        try:
            while os.read(self._reader, 512):
                pass
        except BlockingIOError:  # it is empty now
            return

    def came(self, *numbers: signal.Signals) -> bool:
        """Return whether one of these came."""
        return any(number in numbers for number in self._came)

    def close(self) -> None:
        """Put back what was before."""
        signal.set_wakeup_fd(-1)
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self._reader)
        os.close(self._writer)


@contextlib.contextmanager
def leaving(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Let these signals end the program as Ctrl-C does, by an exception: it exits with 128+N.

    What it has in its hands is put back on the way out, which no further one of them cuts short.
    """
    wanted = tuple(numbers)

    def leave(number: int, _: FrameType | None) -> None:
        for each in wanted:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in wanted}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
