"""The outbox: callbacks about ended jobs, until they are delivered.

    QUEUE_ROOT/outbox/new/NAME              to be told now
    QUEUE_ROOT/outbox/waiting/UNTIL-NAME    to be told again at that time
    QUEUE_ROOT/outbox/failed/NAME           given up, with its reason; a human may send it again

NAME is JOB-END-STATUS.json: an end that is written again after a crash is the same file. It is
durable before the job's state is final, so no end goes untold. An entry holds the result as it was
at that end: the job may be retried or removed before it is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from agentorch.core import callback
from agentorch.core.errors import UnknownJob
from agentorch.core.job import Job
from agentorch.core.results import JobResult
from agentorch.core.times import moment_of, rfc3339
from agentorch.storage import atomic
from agentorch.storage.json_files import Document, read_cache
from agentorch.storage.paths import NEW, REFUSED, WAITING, ArtifactPaths, QueuePaths

_STAMP = "%Y%m%dT%H%M%SZ"
_STAMP_CHARS = len("20260131T235959Z-")


@dataclass(frozen=True)
class Entry:
    """A callback that is to be delivered. `reason` is why the last try failed."""

    webhook_id: str
    job_id: str
    project_id: str | None
    url: str
    created_at: str
    body: Document
    tries: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Placed:
    """An entry where it lies."""

    path: Path
    entry: Entry

    @property
    def name(self) -> str:
        """Its name, without the time until which it waits."""
        return self.path.name[_STAMP_CHARS * (self.path.parent.name == WAITING) :]


def announce(
    paths: QueuePaths, artifacts: ArtifactPaths, job: Job, end: int, result: JobResult
) -> None:
    """Leave a callback about an end, where somebody wants one. Durable on return.

    Written among the job's artifacts, and moved: whatever lies in new/ starts a notifier.
    """
    if job.callback_url is None:
        return
    entry = Entry(
        webhook_id=callback.webhook_id(job.job_id, end, result.status),
        job_id=job.job_id,
        project_id=job.project_id,
        url=job.callback_url,
        created_at=result.finished_at,
        body=result.to_document(),
    )
    # A crash between these two leaves the entry among the artifacts, where nobody delivers it: the
    # job has not ended then, and its next owner writes and moves it again, under the same name.
    atomic.replace(artifacts.callback, atomic.encode(asdict(entry)), last=False)
    os.rename(artifacts.callback, paths.outbox(NEW) / f"{job.job_id}-{end}-{result.status}.json")
    atomic.sync_directory(paths.outbox(NEW))


def sweep(paths: QueuePaths) -> None:
    """Remove what a killed notifier left; for who holds the outbox's lock."""
    for where in (NEW, WAITING, REFUSED):
        atomic.remove_temporaries(paths.outbox(where))


def due(paths: QueuePaths, now: datetime) -> Iterator[Placed]:
    """Yield the callbacks that are due: the new ones, and those that waited long enough."""
    yield from list_entries(paths, NEW)
    for placed in list_entries(paths, WAITING):
        if due_at(placed.path) <= now:
            yield placed


def list_entries(paths: QueuePaths, where: str) -> Iterator[Placed]:
    """Yield the entries in one directory of the outbox, by name."""
    try:
        names = sorted(os.listdir(paths.outbox(where)))
    except FileNotFoundError:  # no job was ever submitted
        return
    for name in names:
        path = paths.outbox(where) / name
        document = {} if name.startswith(".") else read_cache(path)
        if document:
            yield Placed(path, Entry(**document))


def due_at(path: Path) -> datetime:
    """Return when an entry in waiting/ is due."""
    return datetime.strptime(path.name[: _STAMP_CHARS - 1], _STAMP).replace(tzinfo=UTC)


def remove(placed: Placed) -> None:
    """Remove a delivered callback. A power cut may bring it back: it is then delivered again."""
    placed.path.unlink(missing_ok=True)


def postpone(paths: QueuePaths, placed: Placed, moment: datetime, reason: str) -> None:
    """Move a callback to waiting/ until a moment, one try older."""
    stamp = moment.astimezone(UTC).strftime(_STAMP)
    _move(paths, placed, WAITING, f"{stamp}-{placed.name}", reason)


def give_up(paths: QueuePaths, placed: Placed, reason: str) -> None:
    """Move a callback to failed/, where a human looks."""
    _move(paths, placed, REFUSED, placed.name, reason)


def send_again(paths: QueuePaths, word: str, now: datetime) -> str:
    """Put what was given up for a job back to new/; the job's id. Raises UnknownJob."""
    found = [one for one in list_entries(paths, REFUSED) if one.entry.job_id == word]
    if not found:
        raise UnknownJob(f"nothing was given up for job {word!r}")
    for placed in found:
        fresh = replace(placed.entry, tries=0, created_at=rfc3339(now))
        atomic.replace_json(placed.path, asdict(fresh))
        _rename(placed.path, paths.outbox(NEW) / placed.name)
    return word


def age_s(entry: Entry, now: datetime) -> float:
    """Return how long it has been known."""
    return max(0.0, (now - moment_of(entry.created_at)).total_seconds())


def _move(paths: QueuePaths, placed: Placed, where: str, name: str, reason: str) -> None:
    # in place first: between the two it is whole, and is told again
    entry = replace(placed.entry, tries=placed.entry.tries + 1, reason=reason)
    atomic.replace_json(placed.path, asdict(entry))
    _rename(placed.path, paths.outbox(where) / name)


def _rename(source: Path, target: Path) -> None:
    os.rename(source, target)
    for directory in (target.parent, source.parent):
        atomic.sync_directory(directory)
