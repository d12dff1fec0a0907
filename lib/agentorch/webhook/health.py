"""GET /health: the check whether a job could be accepted now, made by writing to the disk.

Anybody may ask without a token, so the result of a check is used again for a few seconds.
"""

from __future__ import annotations

import threading
import time

from agentorch.core.errors import TryAgain
from agentorch.jobqueue.jobqueue import Queue
from agentorch.storage.filesystem_check import refusal
from agentorch.storage.free_space import refuse_below

VALID_S = 5.0


class Health:
    """The latest check, and when it was made."""

    def __init__(self, queue: Queue, floor_bytes: int) -> None:
        self._queue = queue
        self._floor_bytes = floor_bytes
        self._lock = threading.Lock()
        self._checked_s: float | None = None
        self._problem: str | None = None

    def problem(self) -> str | None:
        """Return why no job can be accepted now; None where one can."""
        with self._lock:
            now_s = time.monotonic()
            if self._checked_s is None or now_s - self._checked_s >= VALID_S:
                self._problem, self._checked_s = check_disk(self._queue, self._floor_bytes), now_s
            return self._problem


def check_disk(queue: Queue, floor_bytes: int) -> str | None:
    """Write, link and rename a file in the queue; return what failed, None where all works."""
    try:
        queue.prepare()
        refuse_below(queue.paths.incoming, floor_bytes)
        return refusal(queue.roots)
    except TryAgain as trouble:
        return str(trouble)
    except OSError as trouble:
        return f"{trouble.filename}: {trouble.strerror}"
