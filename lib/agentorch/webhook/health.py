"""GET /health: whether a job could be taken now. It is tried, not guessed.

Anybody may ask, and the trial writes to the disk: so what was found is good for a few seconds.
"""

from __future__ import annotations

import threading
import time

from agentorch.core.errors import TryAgain
from agentorch.jobqueue.jobqueue import Queue
from agentorch.storage.filesystem_check import refusal
from agentorch.storage.free_space import refuse_below

GOOD_FOR_S = 5.0


class Health:
    """The last trial, and when it was."""

    def __init__(self, queue: Queue, floor_bytes: int) -> None:
        self._queue = queue
        self._floor_bytes = floor_bytes
        self._lock = threading.Lock()
        self._tried_s: float | None = None
        self._problem: str | None = None

    def problem(self) -> str | None:
        """Why no job can be taken now, in words; None: one can."""
        with self._lock:
            now_s = time.monotonic()
            if self._tried_s is None or now_s - self._tried_s >= GOOD_FOR_S:
                self._problem, self._tried_s = trial(self._queue, self._floor_bytes), now_s
            return self._problem


def trial(queue: Queue, floor_bytes: int) -> str | None:
    """Writes, links and renames a file where jobs go; None where that works and room is left."""
    try:
        queue.prepare()
        refuse_below(queue.paths.incoming, floor_bytes)
        return refusal(queue.roots)
    except TryAgain as trouble:
        return str(trouble)
    except OSError as trouble:
        return f"{trouble.filename}: {trouble.strerror}"
