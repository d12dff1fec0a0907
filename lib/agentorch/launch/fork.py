"""The embedded launcher: an attempt is a forked child of the runner, warm, and dies with it.

The child inherits the step's flock, taken before the fork, so there is no moment in which the
attempt runs and the lock is free.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import NoReturn

from agentorch.core.attempt import Attempt
from agentorch.core.errors import Exit
from agentorch.launch.base import Busy, Stop
from agentorch.storage.locks import lock
from agentorch.storage.paths import Roots

PR_SET_PDEATHSIG = 1
SIGNALS = {Stop.CANCEL: signal.SIGTERM, Stop.GIVE_BACK: signal.SIGINT}

_libc = ctypes.CDLL(None, use_errno=True)


class Fork:
    """Runs attempts in children. `run` is given the attempt and the lock's descriptor.

    `leave` closes, in the child, what only the runner may hold.
    """

    outlives = False

    def __init__(
        self, roots: Roots, run: Callable[[Attempt, int], int], leave: Callable[[], None]
    ) -> None:
        self._roots = roots
        self._run = run
        self._leave = leave
        self._children: dict[str, int] = {}
        self._ended: dict[str, str] = {}
        self._usage: dict[str, Mapping[str, float]] = {}

    def submit(self, attempt: Attempt) -> str:
        """Forks. Raises Busy while an earlier attempt holds the step's lock."""
        if attempt.name in self._children or attempt.name in self._ended:
            return attempt.name
        step = self._roots.artifacts(attempt.job.job_id).step(attempt.step.step_id)
        step.attempts.mkdir(0o750, parents=True, exist_ok=True)
        descriptor = os.open(
            step.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640
        )
        try:
            if not lock(descriptor, wait=False):
                raise Busy(attempt.name)
            sys.stderr.flush()
            parent = os.getpid()
            child = os.fork()
            if child == 0:
                self._become(attempt, descriptor, parent)
            self._children[attempt.name] = child
        finally:
            os.close(descriptor)
        return attempt.name

    def _become(self, attempt: Attempt, descriptor: int, parent: int) -> NoReturn:
        code = int(Exit.BUG)
        try:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the line above
                os._exit(Exit.INTERRUPTED)
            self._leave()
            code = self._run(attempt, descriptor)
        except BaseException:  # noqa: BLE001  (a child must never return into the runner's code)
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def list(self) -> Mapping[str, str]:
        """Reaps what has ended and tells all."""
        for name in list(self._children):
            self._reap(name, os.WNOHANG)
        return {**self._ended, **dict.fromkeys(self._children, "running")}

    def cancel(self, name: str, why: Stop) -> None:
        """Send the child TERM (cancel) or INT (give back)."""
        if name in self._children:
            os.kill(self._children[name], SIGNALS[why])

    def usage(self, name: str) -> Mapping[str, float]:
        """Return the processor time of the attempt and of what it waited for, once its lock is
        free.

        The lock is free a moment before the child can be reaped: that moment is waited for.
        """
        if name in self._children:
            self._reap(name, 0)
        return self._usage.get(name, {})

    def _reap(self, name: str, options: int) -> None:
        pid, status, used = os.wait4(self._children[name], options)
        if pid:
            del self._children[name]
            self._ended[name] = _end_text(status)
            self._usage[name] = {"cpu_s": round(used.ru_utime + used.ru_stime, 3)}


def _end_text(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process exited with {code}"
