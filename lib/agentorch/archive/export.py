"""A job as one tar: everything that lies in its directories, with the hash of every file.

Whoever claims a job does not ask for the decision lock, and an export keeps nobody waiting. So
everything is read twice: once for the hashes, which stand first, and once to be written. Where a
file has another hash the second time, or the job lies elsewhere at the end, the export is refused;
else every file was, at the moment between the two, what the archive says.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agentorch.archive.layout import (
    ARTIFACTS,
    WORKSPACE,
    Entry,
    LeftOut,
    Manifest,
    is_plain,
    may_hold,
    stays,
)
from agentorch.artifacts.decision_log import deciding
from agentorch.core.errors import Refused
from agentorch.core.job import Job
from agentorch.core.states import State
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import Found, find
from agentorch.storage.locks import hold_lock
from agentorch.storage.tar_stream import CHUNK_BYTES, END, Header, Kind, header_bytes, padding
from agentorch.storage.untrusted_tree import MAX_FILE_BYTES, entries, open_up, reading_work

Write = Callable[[bytes], object]
_UNTOLD = frozenset({b"callback.json"})  # on its way to the outbox


@dataclass(frozen=True)
class Export:
    """The parts of a job that were exported, and those that were not."""

    job: Job
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class _Lying:
    """Something that lies there: its name in the archive, and on the disk."""

    path: str
    disk: bytes
    status: os.stat_result


def export(queue: Queue, word: str, write: Write, *, workspace: bool) -> Export:
    """Write the archive of a job. Raises Refused where somebody works on it, or begins to."""
    first = find(queue, word)
    with deciding(queue.roots.artifacts(first.job.job_id)):
        found = find(queue, first.job.job_id)
        _refuse_busy(queue, found)
        with reading_work():
            lying, left_out = _sort_out(_walk(queue, found.job.job_id, workspace=workspace))
            manifest, sources = _manifest(found, lying, left_out)
            _write(manifest, sources, write)
        if queue.find(found.job) != (found.state, found.key, found.slot):
            raise Refused(f"job {found.job.job_id} was moved while it was exported")
        write(END)
    return Export(found.job, tuple(left_out))


def _refuse_busy(queue: Queue, found: Found) -> None:
    if found.state in (None, State.RUNNING):
        raise Refused(f"can't export job {found.job.job_id}: somebody works on it")
    for step in queue.roots.artifacts(found.job.job_id).started_steps():
        with hold_lock(step.lock, wait=False, owning=False) as free:
            if free is None:
                name = step.directory.name
                raise Refused(f"can't export job {found.job.job_id}: its step {name} runs")


# ---- what lies there --------------------------------------------------------------------------


def _walk(queue: Queue, job_id: str, *, workspace: bool) -> Iterator[_Lying]:
    """Yield everything in the job's directories that an archive could have; no link is followed."""
    tops = [(ARTIFACTS, queue.roots.artifacts(job_id).directory)]
    if workspace and queue.roots.workspace(job_id).directory.exists():
        tops.append((WORKSPACE, queue.roots.workspace(job_id).directory))
    waiting = [(name, os.fsencode(directory)) for name, directory in tops]
    while waiting:
        path, disk = waiting.pop()
        status = os.lstat(disk)
        yield _Lying(path, disk, status)
        if stat.S_ISDIR(status.st_mode) and may_hold(path, Kind.DIRECTORY):
            open_up(disk, status)
            below = (entry for entry in entries(disk) if entry.name not in _UNTOLD)
            waiting += [(f"{path}/{os.fsdecode(entry.name)}", entry.path) for entry in below]


def _sort_out(found: Iterator[_Lying]) -> tuple[list[_Lying], list[LeftOut]]:
    """Return what goes in, parents first, and what does not; what is ours alone is not
    mentioned.
    """
    goes: list[_Lying] = []
    left_out: list[LeftOut] = []
    for one in sorted(found, key=lambda lying: os.fsencode(lying.path)):
        why = _why_not(one)
        if why is None:
            goes.append(one)
        elif why:
            left_out.append(LeftOut(one.path, why))
    return goes, left_out


def _why_not(one: _Lying) -> str | None:
    """Why something is left out: None where it is not, empty where nobody misses it."""
    kind = _kind(one.status)
    if kind is None:
        return "no file, directory or link"
    if not is_plain(one.path):
        return "its path is too long"
    if not may_hold(one.path, kind):
        return ""
    if kind is Kind.SYMLINK and not stays(one.path, os.fsdecode(os.readlink(one.disk))):
        return "a link out of the work tree"
    if one.path.startswith(f"{WORKSPACE}/") and one.status.st_size > MAX_FILE_BYTES:
        return f"larger than {MAX_FILE_BYTES} bytes"
    return None


def _kind(status: os.stat_result) -> Kind | None:
    kinds = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK}
    return kinds.get(stat.S_IFMT(status.st_mode))


# ---- the first reading ------------------------------------------------------------------------


def _manifest(
    found: Found, lying: list[_Lying], left_out: list[LeftOut]
) -> tuple[Manifest, dict[str, bytes]]:
    """Return the manifest, and where on the disk the content of each file in it is."""
    assert found.state is not None
    sources: dict[str, bytes] = {}
    known: dict[tuple[int, int], str] = {}
    listed = [_entry(one, known, sources) for one in lying]
    key = str(found.key)
    return Manifest(found.job.job_id, found.state, key, listed, left_out), sources


def _entry(one: _Lying, known: dict[tuple[int, int], str], sources: dict[str, bytes]) -> Entry:
    kind = _kind(one.status)
    assert kind is not None
    mode = stat.S_IMODE(one.status.st_mode) & 0o777
    if kind is Kind.SYMLINK:
        return Entry(Header(one.path, kind, 0o777, target=os.fsdecode(os.readlink(one.disk))))
    if kind is Kind.DIRECTORY:
        return Entry(Header(one.path, kind, mode | 0o500))
    identity = (one.status.st_dev, one.status.st_ino)
    if identity in known:
        return Entry(Header(one.path, Kind.LINK, mode | 0o400, target=known[identity]))
    known[identity] = one.path
    sources[one.path] = one.disk
    open_up(one.disk, one.status)
    size, sha256 = _hash(one.disk)
    return Entry(Header(one.path, kind, mode | 0o400, size), sha256)


def _hash(disk: bytes) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(disk):
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _pieces(disk: bytes) -> Iterator[bytes]:
    # O_NONBLOCK: were it swapped for a FIFO, the open returns, and there is nothing to read
    descriptor = os.open(disk, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


# ---- the second -------------------------------------------------------------------------------


def _write(manifest: Manifest, sources: dict[str, bytes], write: Write) -> None:
    content = manifest.encode()
    write(header_bytes(manifest.header) + content + padding(len(content)))
    for entry in manifest.entries:
        write(header_bytes(entry.header))
        if entry.header.kind is Kind.FILE:
            _copy(entry, sources[entry.header.path], write)
            write(padding(entry.header.size))


def _copy(entry: Entry, disk: bytes, write: Write) -> None:
    """Write a file's content. Raises Refused where it is not what the manifest says by now."""
    digest, left = hashlib.sha256(), entry.header.size
    try:
        for piece in _pieces(disk):
            left -= len(piece)
            if left < 0:
                break
            digest.update(piece)
            write(piece)
    except FileNotFoundError:  # gone: as good as changed
        left = -1
    if left or digest.hexdigest() != entry.sha256:
        raise Refused(f"{Path(os.fsdecode(disk))} was changed while it was exported")
