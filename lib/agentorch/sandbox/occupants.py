"""The occupants of a sandbox: the processes that see a work tree through a mount of its own.

A lock's descriptor is closed a moment before its holder's last neighbours are killed (the kernel
closes the files of a namespace's first process, then ends the others), and a client may end before
what it started. So whoever is about to read or reset a work tree first makes sure here that nobody
else can still write to it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from agentorch.core.errors import TryAgain


def occupants(work: Path) -> list[int]:
    """Process that have a mount namespace other than ours with a mount at `work`.

    One that is ending (a zombie) sees nothing any more and is not counted.
    """
    ours = _namespace()
    points = _points(work)
    return [pid for pid in _processes() if _sees(pid, ours, points)]


def vacate(work: Path, timeout_s: float = 10) -> None:
    """Kills the occupants and returns when they are gone.

    Raises TryAgain where one can't be ended in time: it hangs in the kernel (a dead disk).
    """
    deadline = time.monotonic() + timeout_s
    while pids := occupants(work):
        for pid in pids:
            _end(pid, work, deadline)


def _end(pid: int, work: Path, deadline: float) -> None:
    with _handle(pid) as descriptor:
        # asked again with the handle open: from here on the number can't be another process
        if descriptor is None or not _sees(pid, _namespace(), _points(work)):
            return
        with contextlib.suppress(ProcessLookupError):  # gone by itself
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        left_s = max(0.0, deadline - time.monotonic())
        if not select.select([descriptor], [], [], left_s)[0]:
            raise TryAgain(f"{work}: process {pid} of an ended attempt can't be killed")


@contextlib.contextmanager
def _handle(pid: int) -> Iterator[int | None]:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _processes() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _namespace() -> str:
    return os.readlink("/proc/self/ns/mnt")


def _sees(pid: int, ours: str, points: frozenset[bytes]) -> bool:
    try:
        if os.readlink(f"/proc/{pid}/ns/mnt") == ours:
            return False
        text = Path(f"/proc/{pid}/mountinfo").read_bytes()
    except OSError:  # it is gone, or another user's and so no attempt of ours
        return False
    return any(line.split()[4] in points for line in text.splitlines())


def _points(work: Path) -> frozenset[bytes]:
    """Return the mount point as proc_pid_mountinfo(5) spells it: a wrapper may resolve links or
    not.
    """
    return frozenset(map(_escape, (work, work.resolve())))


def _escape(path: Path) -> bytes:
    text = os.fsencode(path)
    for character in b"\\ \t\n":
        text = text.replace(bytes([character]), b"\\%03o" % character)
    return text
