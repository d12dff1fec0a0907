"""Durable submits through the library, against the least that a durable file costs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from agentorch.jobqueue.jobqueue import Queue
from agentorch.storage.atomic import sync_directory
from tests.bench.measure import Figure, Goal, Options, interleaved, median_ratio, seconds
from tests.bench.site import Accepted, accepted, roots_in

MS = 1000


def figures(options: Options) -> Iterator[Figure]:
    """The ratio of the two rates, and both costs."""
    batch = options.size(25, 2)
    with options.scratch() as scratch:
        queue = Queue(roots_in(scratch))
        queue.prepare()
        bare = scratch / "bare"
        bare.mkdir()
        sides = {
            "bare": bare_loop(bare, _queued_bytes(queue), batch),
            "submit": submit_loop(queue, batch),
        }
        interleaved(sides, 1)  # the first writes of a directory are dearer
        taken = interleaved(sides, options.size(30, 2))
    ratio = median_ratio(taken["bare"], taken["submit"])
    yield Figure("submit_ratio", ratio, "bare/submit", Goal(0.5, at_least=True))
    yield Figure("submit", median(taken["submit"]) / batch * MS, "ms")
    yield Figure("submit_bare", median(taken["bare"]) / batch * MS, "ms")


def submit_loop(queue: Queue, count: int) -> Callable[[], float]:
    """Submits jobs that were accepted before the clock starts."""

    def submit() -> float:
        jobs = [a_job() for _ in range(count)]
        return seconds(lambda: [queue.submit(job, document) for job, document in jobs])

    return submit


def a_job() -> Accepted:
    """A job of one step."""
    return accepted(datetime.now(UTC), {"01": "true"})


def _queued_bytes(queue: Queue) -> bytes:
    job, document = a_job()
    queue.submit(job, document)
    return queue.roots.artifacts(job.job_id).job.read_bytes()


def bare_loop(directory: Path, content: bytes, count: int) -> Callable[[], float]:
    """Writes the same bytes to files of new names, each durable before the next."""
    numbers = itertools.count()

    def bare() -> None:
        for number in itertools.islice(numbers, count):
            write(directory / str(number), content)

    return lambda: seconds(bare)


def write(path: Path, content: bytes) -> None:
    """write, fsync, rename, fsync of the directory."""
    new = f"{path}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(new, path)
    sync_directory(path.parent)
