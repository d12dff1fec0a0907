"""Garbage collection: carries out what retention decided, on jobs that have ended.

    ARTIFACTS_ROOT/.trash/  WORKSPACES_ROOT/.trash/     moved there first, of no value to anybody

A job goes in this order: its workspace moves to the trash, then its artifacts, then its queue file
is removed, then the trash. A crash in between leaves a queue file in done/ or failed/ without
artifacts, which says that the job has ended and nothing else: the next collection removes it. Had
the queue file gone first, recovery would take the job for a submission that was never queued.

The decision lock is held from the last look to the end, so nobody retries the job meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from agentorch.artifacts.decision_log import deciding, name_of
from agentorch.artifacts.directory import JobArtifacts
from agentorch.core.errors import Damaged, Refused, UnknownJob
from agentorch.core.job import Job, Key
from agentorch.core.states import ENDED, State
from agentorch.core.times import moment_of
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import Found, find
from agentorch.ledger import ledger
from agentorch.retention.rules import Ended, Part, Plan, Removal, Rules, least_age_s, plan
from agentorch.storage import atomic
from agentorch.storage.copy_tree import remove
from agentorch.storage.json_files import read_json
from agentorch.storage.paths import ArtifactPaths

TRASH = ".trash"
CUT_OFF = "a collection of it was cut off"
_BLOCK_BYTES = 512  # of st_blocks, whatever the filesystem's own are (stat(2))


@dataclass(frozen=True)
class Collected:
    """A removal that was carried out, with what was counted on the disk."""

    removal: Removal
    freed_bytes: int


def make_plan(queue: Queue, rules: Rules, now: datetime) -> Plan:
    """Return what would go now, and why, and what stays in spite. Nothing is written."""
    free_bytes = _free_bytes(queue.roots.artifacts_root)
    sized = bool(rules.max_bytes) or free_bytes < rules.min_free_bytes
    least_s = least_age_s(rules)
    ended = [
        _ended_job(queue, state, key, sized=sized)
        for state in sorted(ENDED)
        for key, _ in queue.list_state(state)
        # it can't have ended before it was submitted: most jobs need no look at their files
        if sized or (least_s is not None and now - key.submitted_at >= timedelta(seconds=least_s))
    ]
    cut_off = [Removal(job, Part.JOB, CUT_OFF) for job in ended if not _has_artifacts(queue, job)]
    gone = {removal.job.key for removal in cut_off}
    rest = (job for job in ended if job.key not in gone)
    found = plan(rest, rules, now, free_bytes=free_bytes)
    return replace(found, goes=(*cut_off, *found.goes))


def carry_out(queue: Queue, goes: Iterable[Removal]) -> Iterator[Collected]:
    """Remove what was planned, where that still holds, and what an earlier collection left.

    Raises TryAgain where something can't be removed.
    """
    for directory in _trashes(queue):
        remove(directory)
    for removal in goes:
        with atomic.disk_trouble(queue.paths.root):
            moved = _move_to_trash(queue, removal)
        if moved is not None:
            freed = sum(_size_bytes(path) for path in moved)
            for path in moved:
                remove(path)
            yield Collected(removal, freed)


def _move_to_trash(queue: Queue, removal: Removal) -> list[Path] | None:
    """Return the parts of a job, in the trash; None where it is no longer as it was planned."""
    key, state = removal.job.key, removal.job.state
    artifacts = queue.roots.artifacts(key.job_id)
    queued = queue.paths.file(state, key)
    try:
        with deciding(artifacts):
            if not _is_whole(queued, artifacts.job):
                return _remove_queue_file(queued, artifacts.job)
            if artifacts.keep.exists():  # pinned since
                return None
            if removal.part is Part.JOB:
                return _taken_away(queue, queued, key.job_id)
            trashed = _trash(queue.roots.workspace(key.job_id).directory)
            return [] if trashed is None else [trashed]
    except UnknownJob:  # a collection was killed when it had moved the artifacts
        return _remove_queue_file(queued, artifacts.job)


def _taken_away(queue: Queue, queued: Path, job_id: str) -> list[Path]:
    """Move all of a job to the trash; its queue file, which says that it was there, go last."""
    queue.forget_key(job_id)
    ledger.forget_job(queue.roots, job_id)
    parts = (queue.roots.workspace(job_id).directory, queue.roots.artifacts(job_id).directory)
    moved = [path for path in map(_trash, parts) if path is not None]
    _drop(queued)
    return moved


def delete(queue: Queue, word: str) -> Job:
    """Remove all of a job that has ended, whatever its age. Durable when it returns.

    Raises Refused where it has not ended, or is pinned; TryAgain where something can't be removed:
    the job is gone, then, and the next collection removes what is left.
    """
    first = find(queue, word)
    artifacts = queue.roots.artifacts(first.job.job_id)
    with atomic.disk_trouble(artifacts.directory), deciding(artifacts):
        found = find(queue, first.job.job_id)
        _refuse_to_delete(found, artifacts)
        assert found.state is not None and found.key is not None  # noqa: PT018
        moved = _taken_away(queue, queue.paths.file(found.state, found.key), found.job.job_id)
    for path in moved:
        remove(path)
    return found.job


def _refuse_to_delete(found: Found, artifacts: ArtifactPaths) -> None:
    if found.state not in ENDED:
        where = found.state or "being submitted"
        raise Refused(f"can't delete job {found.job.job_id}: it is {where}: cancel it first")
    if artifacts.keep.exists():
        pinned = name_of((read_json(artifacts.keep) or {}).get("who") or {})
        raise Refused(f"can't delete job {found.job.job_id}: it is pinned, by {pinned}")


def _is_whole(queued: Path, job: Path) -> bool:
    """Return whether the job is still where it was, and its queue file its own."""
    try:
        return os.path.samestat(queued.stat(), job.stat())
    except FileNotFoundError:
        return False


def _remove_queue_file(queued: Path, job: Path) -> list[Path] | None:
    """Remove a queue file whose job is gone; its id may be another job's by now."""
    if not queued.exists() or _is_whole(queued, job):
        return None
    _drop(queued)
    return []


def _drop(queued: Path) -> None:
    queued.unlink(missing_ok=True)
    atomic.sync_directory(queued.parent)


def _trash(directory: Path) -> Path | None:
    """Move a directory to the trash beside it, durably; None where it is not there."""
    trash = directory.parent / TRASH
    trash.mkdir(0o700, exist_ok=True)
    target = trash / f"{directory.name}.{os.urandom(6).hex()}"
    try:
        os.rename(directory, target)
    except FileNotFoundError:
        return None
    atomic.sync_directory(directory.parent)
    return target


def _trashes(queue: Queue) -> list[Path]:
    return [root / TRASH for root in (queue.roots.artifacts_root, queue.roots.workspaces_root)]


# ---- looking ----------------------------------------------------------------------------------


def _has_artifacts(queue: Queue, job: Ended) -> bool:
    queued = queue.paths.file(job.state, job.key)
    # where it was moved meanwhile, it has them
    return not queued.exists() or _is_whole(queued, queue.roots.artifacts(job.key.job_id).job)


def _ended_job(queue: Queue, state: State, key: Key, *, sized: bool) -> Ended:
    artifacts, workspace = queue.roots.artifacts(key.job_id), queue.roots.workspace(key.job_id)
    known = None
    with suppress(OSError, Damaged):  # its age is then that of its submission
        known = JobArtifacts(artifacts).read_state()
    ended = None if known is None else known.finished_at
    return Ended(
        key=key,
        state=state,
        ended_at=moment_of(ended) if ended is not None else key.submitted_at,
        has_workspace=workspace.directory.exists(),
        artifacts_bytes=_size_bytes(artifacts.directory) if sized else 0,
        workspace_bytes=_size_bytes(workspace.directory) if sized else 0,
        is_pinned=artifacts.keep.exists(),
    )


def _free_bytes(directory: Path) -> int:
    try:
        found = os.statvfs(directory)
    except FileNotFoundError:  # nothing was ever submitted
        return 0
    return found.f_bavail * found.f_frsize


def _size_bytes(directory: Path) -> int:
    """Return what a tree takes on the disk, each file once; what can't be read is left out."""
    seen: dict[tuple[int, int], int] = {}
    for path, _, names in os.walk(directory):
        for name in (".", *names):
            try:
                found = os.lstat(os.path.join(path, name))
            except OSError:  # gone meanwhile, or closed to us
                continue
            seen[found.st_dev, found.st_ino] = found.st_blocks * _BLOCK_BYTES
    return sum(seen.values())
