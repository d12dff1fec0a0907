"""A job out of an archive: taken as a whole, or nothing of it.

    incoming/import-RANDOM              flock held by the import; becomes job.json and queue file
    ARTIFACTS_ROOT/.import-RANDOM/      unpacked, while every hash is checked
    WORKSPACES_ROOT/.import-RANDOM/

Only when all of it is there, as its manifest says, and durable, the file in incoming/ becomes
job.json there, and · the rename of .import-RANDOM to ID decides who owns the id · the workspace is
renamed · the ledger is told · the rename of the file in incoming/ queues the job. Who dies before
the first of these has brought nothing, and who dies after it has brought a job: `recover` removes
the one, and finishes the other.

An archive is written by anybody. So its names are checked before anything is made (see archive),
no link is made before the last file is there, what becomes of documents is checked at the door that
every job goes through, and of a repository only objects and names are taken, never configuration.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from agentorch.archive import layout
from agentorch.archive.import_checks import check
from agentorch.archive.layout import ARTIFACTS, MAX_MANIFEST_BYTES, Entry, Manifest, manifest_of
from agentorch.artifacts.decision_log import current_user, mark, unmark
from agentorch.artifacts.directory import JobArtifacts
from agentorch.core.errors import Damaged, Duplicate, Invalid
from agentorch.core.job import Job
from agentorch.core.states import ENDED, State, Status
from agentorch.jobqueue.jobqueue import Queue, current_job
from agentorch.ledger import ledger
from agentorch.storage import atomic
from agentorch.storage.copy_tree import change_modes, remove
from agentorch.storage.free_space import refuse_below
from agentorch.storage.json_files import Document, make_from, read_document, read_json
from agentorch.storage.locks import hold_lock, lock
from agentorch.storage.paths import IMPORT, ArtifactPaths, WorkspacePaths
from agentorch.storage.tar_stream import Header, Kind, Readable, TarReader
from agentorch.workspace.history import History
from agentorch.workspace.record import decode, encode

REASON = "imported"
Problems = Callable[[Document], Sequence[str]]
_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


@dataclass(frozen=True)
class Brought:
    """A job that was imported, and where it was put."""

    job: Job
    state: State


@dataclass(frozen=True)
class _Arriving:
    """A job while it is unpacked."""

    artifacts: ArtifactPaths
    workspace: WorkspacePaths

    def path_of(self, path: str) -> Path:
        """Return where an entry of the archive belongs."""
        top, _, rest = path.partition("/")
        root = self.artifacts if top == ARTIFACTS else self.workspace
        return root.directory / rest if rest else root.directory

    def remove(self) -> None:
        """Take it all away."""
        remove(self.artifacts.directory)
        remove(self.workspace.directory)


def bring(
    queue: Queue, file: Readable, problems: Problems, now: datetime, *, floor_bytes: int = 0
) -> Brought:
    """Take the job of an archive: to done/ or failed/ where it had ended, else to held/.

    `problems` are what the server has against a job that may run here. Durable when it returns.
    Raises Invalid where the archive is not as it was written, Duplicate where the id is taken,
    TryAgain where the disk can't take it; then nothing is left behind.
    """
    recover(queue)
    refuse_below(queue.paths.incoming, floor_bytes)
    tape = TarReader(file)
    manifest = _manifest(tape)
    _refuse_taken(queue, manifest.job_id)
    with _unpacking(queue) as (incoming, arriving):
        _unpack(tape, manifest, arriving)
        check(manifest, arriving.artifacts, arriving.workspace, problems)
        _place(manifest, arriving, now)
        _own(queue, manifest.job_id, incoming, arriving)
        return Brought(*_complete(queue, incoming, manifest.job_id))


def _manifest(tape: TarReader) -> Manifest:
    header = tape.next()
    if header is None or (header.path, header.kind) != (layout.NAME, Kind.FILE):
        raise Invalid([f"it does not begin with {layout.NAME}: agentorch-export wrote no such tar"])
    return manifest_of(tape.whole(MAX_MANIFEST_BYTES))


def _refuse_taken(queue: Queue, job_id: str) -> None:
    if queue.roots.artifacts(job_id).job.exists():
        raise Duplicate(f"job {job_id!r} is there already")


@contextmanager
def _unpacking(queue: Queue) -> Iterator[tuple[Path, _Arriving]]:
    """Return a file in incoming/, locked, and what lies beside it.

    All of it is gone when anything is raised before the id is owned; what is behind that is left to
    recovery.
    """
    with atomic.disk_trouble(queue.roots.artifacts_root), _incoming(queue) as incoming:
        arriving = _Arriving(*queue.roots.arriving(incoming.name))
        atomic.sync_directory(incoming.parent)
        try:
            yield incoming, arriving
        except BaseException:
            if _owned_job_id(queue, incoming, incoming.stat()) is None:
                arriving.remove()
                incoming.unlink()
            raise


@contextmanager
def _incoming(queue: Queue) -> Iterator[Path]:
    while True:
        path = queue.paths.incoming / f"{IMPORT}{os.urandom(16).hex()}"
        with hold_lock(path, wait=False) as descriptor:
            # a recovery may have met the file before its lock was taken, and removed it
            if descriptor is not None and os.fstat(descriptor).st_nlink:
                yield path
                return


# ---- unpacking --------------------------------------------------------------------------------


def _unpack(tape: TarReader, manifest: Manifest, arriving: _Arriving) -> None:
    """Unpacks what the manifest names, and nothing else; links when all files are there."""
    for entry in manifest.entries:
        header = tape.next()
        if header != entry.header:
            name = "its end" if header is None else repr(header.path)
            raise Invalid([f"{name}: it is not what {layout.NAME} says: {entry.header.path!r}"])
        _make(tape, entry, arriving)
    if (more := tape.next()) is not None:
        raise Invalid([f"{more.path!r}: {layout.NAME} does not name it"])
    for entry in manifest.entries:
        _link(entry.header, arriving)
    _close_directories(manifest, arriving)


def _make(tape: TarReader, entry: Entry, arriving: _Arriving) -> None:
    path = arriving.path_of(entry.header.path)
    if entry.header.kind is Kind.DIRECTORY:
        path.mkdir(0o750)
    elif entry.header.kind is Kind.FILE:
        is_ours = entry.header.path.startswith(ARTIFACTS)
        mode = 0o640 if is_ours else entry.header.mode & 0o777 | 0o600
        if _write(tape, path, mode, entry.header.size, sync=is_ours) != entry.sha256:
            raise Invalid([f"{entry.header.path!r}: it was altered: its SHA-256 is another"])


def _write(tape: TarReader, path: Path, mode: int, size: int, *, sync: bool) -> str:
    """Write a file and tell its hash; where it holds nothing but zeros, it gets a hole."""
    digest = hashlib.sha256()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, mode), "wb") as file:
        for piece in tape.content():
            digest.update(piece)
            if piece.count(0) == len(piece):
                file.seek(len(piece), os.SEEK_CUR)
            else:
                file.write(piece)
        file.truncate(size)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    return digest.hexdigest()


def _link(header: Header, arriving: _Arriving) -> None:
    if header.kind is Kind.LINK:
        os.link(arriving.path_of(header.target), arriving.path_of(header.path))
    elif header.kind is Kind.SYMLINK:
        os.symlink(header.target, arriving.path_of(header.path))


def _close_directories(manifest: Manifest, arriving: _Arriving) -> None:
    """Give the work tree's entries their permissions, the deepest first."""
    modes = {
        os.fsencode(entry.header.path): entry.header.mode
        for entry in manifest.entries
        if not entry.header.path.startswith(ARTIFACTS) and entry.header.kind in _WITH_MODE
    }
    below = {path.partition(b"/")[2]: mode for path, mode in modes.items() if b"/" in path}
    change_modes(arriving.workspace.directory, below)


_WITH_MODE = (Kind.FILE, Kind.DIRECTORY)


# ---- taking it --------------------------------------------------------------------------------


def _place(manifest: Manifest, arriving: _Arriving, now: datetime) -> None:
    """Leave what is to be known of it here: a job that has not ended is held back."""
    if manifest.state in ENDED:
        unmark(arriving.artifacts.hold)
    else:
        mark(arriving.artifacts.hold, current_user(), REASON, now)
    if arriving.workspace.directory.exists():
        _replant(arriving.workspace.history)
        _restart(arriving.workspace.record)


def _replant(directory: Path) -> None:
    """Give the objects that came a repository of our making."""
    if not directory.exists():
        return
    came = directory.with_name("history.came")
    directory.rename(came)
    History(directory).create()
    for name in os.listdir(came):
        remove(directory / name)
        (came / name).rename(directory / name)
    came.rmdir()


def _restart(path: Path) -> None:
    """Let the next step begin from git's trees alone, as after a reboot.

    What the record says of files that git can't hold are paths, and somebody else wrote them.
    """
    if (document := read_json(path)) is not None:
        record = replace(decode(document), begun=None, boot="")
        atomic.replace_json(path, encode(record))


def _own(queue: Queue, job_id: str, incoming: Path, arriving: _Arriving) -> None:
    """Make it all durable, and take the id. Raises Duplicate where somebody was quicker."""
    job = arriving.artifacts.job
    with incoming.open("wb") as file:
        file.write(job.read_bytes())
        file.flush()
        os.fsync(file.fileno())
    job.unlink()
    os.link(incoming, job)
    for path, _, _ in os.walk(arriving.artifacts.directory, topdown=False):
        atomic.sync_directory(Path(path))
    try:
        os.rename(arriving.artifacts.directory, queue.roots.artifacts(job_id).directory)
    except OSError as problem:
        if problem.errno not in _TAKEN:
            raise
        raise Duplicate(f"job {job_id!r} is there already") from problem


def _complete(queue: Queue, incoming: Path, job_id: str) -> tuple[Job, State]:
    """Return what is left to do when the id is owned; it may have been begun. Durable on return."""
    atomic.sync_directory(queue.roots.artifacts_root)
    _, came = queue.roots.arriving(incoming.name)
    workspace = queue.roots.workspace(job_id).directory
    if came.directory.exists():
        remove(workspace)  # of nobody: whose it was is no more
        os.rename(came.directory, workspace)
        atomic.sync_directory(workspace.parent)
    artifacts = queue.roots.artifacts(job_id)
    job, state = current_job(artifacts), state_of(artifacts)
    if state in ENDED:
        ledger.record_place(queue.roots, job_id, state)
    queue.move(incoming, queue.paths.file(state, job.key))
    return job, state


def state_of(artifacts: ArtifactPaths) -> State:
    """Return where a job belongs that was imported."""
    known = JobArtifacts(artifacts).read_state()
    if artifacts.hold.exists() or known is None:
        return State.HELD
    return State.DONE if known.status == Status.SUCCESS else State.FAILED


# ---- recovery ---------------------------------------------------------------------------------


def recover(queue: Queue) -> None:
    """Finishes or removes what dead imports left."""
    with suppress(FileNotFoundError):  # nothing was ever queued
        for name in sorted(os.listdir(queue.paths.incoming)):
            if name.startswith(IMPORT):
                _recover(queue, queue.paths.incoming / name)


def _recover(queue: Queue, path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # its import ended just now
        return
    try:
        if not lock(descriptor, wait=False) or not path.exists():
            return
        job_id = _owned_job_id(queue, path, os.fstat(descriptor))
        if job_id is not None:
            _complete(queue, path, job_id)
        _Arriving(*queue.roots.arriving(path.name)).remove()
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _owned_job_id(queue: Queue, path: Path, found: os.stat_result) -> str | None:
    """Return the id that a dead import owns and did not queue; None: it owns none, or has queued
    it.
    """
    if found.st_nlink != 2:
        return None
    try:
        job_id = make_from(path, read_document(path), lambda document: str(document["job_id"]))
    except Damaged:
        return None
    try:
        own = os.path.samestat(queue.roots.artifacts(job_id).job.stat(), found)
    except FileNotFoundError:  # it died before the rename
        return None
    return job_id if own else None
