"""The processes that a program leaves behind, found and ended, daemonised ones included.

While this process is a child subreaper (prctl(2)), an orphan among its descendants becomes its own
child: no double fork and no setsid(2) leads out of the tree below it.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import select
import signal
import time
from collections.abc import Iterator

from agentorch.system import procfs
from agentorch.system.procfs import Process

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
# A fork bomb has more processes than we may have descriptors.
_WATCHED_AT_ONCE = 100

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Have the kernel kill the calling process when the thread that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def subreaper() -> Iterator[None]:
    """Orphaned descendants become our children meanwhile."""
    before = ctypes.c_int()
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _prctl(_PR_SET_CHILD_SUBREAPER, before.value)


def _prctl(option: int, argument: object) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl")


class Descendants:
    """All processes below this one, but not the children that it had before, nor theirs."""

    def __init__(self) -> None:
        self._root = os.getpid()
        before = (
            []
            if _childless()
            else procfs.descendants_of(procfs.processes(), self._root, frozenset())
        )
        self._spared = frozenset(one.identity for one in before)
        self._asked: set[tuple[int, int]] = set()
        self._refused: set[tuple[int, int]] = set()
        self._direct: int | None = None

    def expect(self, pid: int) -> None:
        """Say which child somebody else waits for; the others' exit statuses are read here."""
        self._direct = pid

    def living(self) -> list[Process]:
        """Those that run now. Ended orphans are waited for, so that none stays a zombie."""
        living, ended = self._find()
        for one in ended:
            os.waitpid(one.pid, os.WNOHANG)
        return living

    def end(self, grace_s: float, wrapper: int | None = None) -> None:
        """SIGTERM to all, after `grace_s` SIGKILL; returns when none is left.

        `wrapper` is not asked by SIGTERM: a sandbox's outer process ends with what it holds, and
        would take it along at once if it went first. A process that changed its user and can't be
        signalled is left.
        """
        deadline = time.monotonic() + grace_s
        while not _childless():
            living, ended = self._find()
            for one in ended:
                os.waitpid(one.pid, 0)
            living = [one for one in living if one.identity not in self._refused]
            # One that forks and exits while we look is seen as ended at least, since only we can
            # wait for it: its child may have been missed, so only an empty look proves anything.
            if not living and not ended:
                return
            if time.monotonic() < deadline:
                _wait_for_all(_some(self._ask(living, wrapper)), deadline)
            else:
                _wait_for_all(_some(self._kill(living)), None)

    def _find(self) -> tuple[list[Process], list[Process]]:
        """Return the living, and the ended that nobody but us can wait for."""
        found = procfs.descendants_of(procfs.processes(), self._root, self._spared)
        ended = [
            one
            for one in found
            if one.has_ended and one.parent == self._root and one.pid != self._direct
        ]
        return [one for one in found if not one.has_ended], ended

    def _ask(self, living: list[Process], wrapper: int | None) -> Iterator[int | None]:
        for one in living:
            again = one.identity in self._asked or one.pid == wrapper
            self._asked.add(one.identity)
            yield self._reach(one, None if again else signal.SIGTERM)

    def _kill(self, living: list[Process]) -> Iterator[int | None]:
        for one in living:
            yield self._reach(one, signal.SIGKILL)

    def _reach(self, one: Process, number: signal.Signals | None) -> int | None:
        """Return a descriptor of this very process, with the signal sent; None where it is gone."""
        try:
            descriptor = os.pidfd_open(one.pid)
        except ProcessLookupError:
            return None
        found = procfs.process(one.pid)
        if found is None or found.identity != one.identity:  # the number has a new owner
            os.close(descriptor)
            return None
        try:
            if number is not None:
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:  # ended by now: the descriptor says so too
            pass
        except PermissionError:
            self._refused.add(one.identity)
            os.close(descriptor)
            return None
        return descriptor


def _childless() -> bool:
    """Return whether nothing descends from us: whoever lost its parent would be our child by
    now.
    """
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _some(descriptors: Iterator[int | None]) -> list[int]:
    """As many as may stay open at once; the next look finds the others."""
    kept: list[int] = []
    for one in descriptors:
        if one is not None and len(kept) < _WATCHED_AT_ONCE:
            kept.append(one)
        elif one is not None:
            os.close(one)
    return kept


def _wait_for_all(descriptors: list[int], deadline: float | None) -> None:
    """Until all these processes ended, or the deadline; closes the descriptors."""
    poller = select.poll()
    for one in descriptors:
        poller.register(one, select.POLLIN)
    waiting = set(descriptors)
    while waiting:
        left_ms = None if deadline is None else _ms_until(deadline)
        ended = poller.poll(left_ms)
        if not ended:
            break
        for one, _ in ended:
            poller.unregister(one)
            waiting.discard(one)
    for one in descriptors:
        os.close(one)


def _ms_until(deadline: float) -> int:
    return max(0, math.ceil((deadline - time.monotonic()) * 1000))
