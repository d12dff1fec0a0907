"""The queue: jobs in directories, moved by rename(2).

Its tree is in `paths`. The invariant: a job that was acknowledged has exactly one queue file, and
that file is the same inode as artifacts/ID/job.json, for good. So

* link(2) of artifacts/ID/job.json decides who owns an id; EEXIST is a duplicate;
* the rename into pending/ (or awaiting_approval/) queues the job;
* a job.json with one link is a submission that was never queued, and whoever meets it queues it;
* an incoming/ file whose flock is free has no submitter any more;
* symlink(2) of idempotency/DIGEST decides under which id a key's job is submitted, before anything
  else is there of it. Whoever comes with that key later submits under the same id, and the link of
  artifacts/ID/job.json decides between them: a key whose submitter died is completed by its next
  delivery. The job's own document says which key it came with, so an id that is somebody else's
  is never taken for the key's.

Every gap between two system calls here is a crash test.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from agentorch.contracts.to_job import job_of
from agentorch.core.errors import Damaged, Duplicate
from agentorch.core.job import MAX_TAKEN, Job, Key
from agentorch.core.states import State
from agentorch.storage import atomic
from agentorch.storage.free_space import refuse_below
from agentorch.storage.json_files import Document, make_from, read_document
from agentorch.storage.locks import hold_lock, lock
from agentorch.storage.paths import IMPORT, NEW, REFUSED, WAITING, ArtifactPaths, Roots, parked_key

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Queue:
    """The queue below one set of roots."""

    def __init__(self, roots: Roots) -> None:
        self.roots = roots
        self.paths = roots.queue

    def prepare(self) -> None:
        """Make the directories, durably. Raises TryAgain when the disk can't take them."""
        directories = [self.paths.state(state) for state in State]
        directories += [
            self.paths.incoming,
            self.paths.keys,
            *(self.paths.outbox(where) for where in (NEW, WAITING, REFUSED)),
            self.roots.artifacts_root,
            self.roots.workspaces_root,
        ]
        for directory in directories:
            with atomic.disk_trouble(directory):
                atomic.make_directory(directory)

    # ---- submit -------------------------------------------------------------------------------

    def submit(self, job: Job, document: Document, *, floor_bytes: int = 0) -> State:
        """Queue a job; durable when it returns. Tells where it lies.

        Raises Duplicate when the id is taken, TryAgain when the disk can't take it; then nothing
        is queued and nothing is left behind.
        """
        content = atomic.encode_line(document)
        artifacts = self.roots.artifacts(job.job_id)
        refuse_below(self.paths.incoming, floor_bytes)
        with atomic.disk_trouble(artifacts.directory), self._incoming(content) as incoming:
            # The content is on the disk, its name only in incoming/. A crash from here to the link
            # leaves a file whose flock is free and which has one link: the next owner of a slot
            # removes it.
            with contextlib.suppress(FileExistsError):
                artifacts.directory.mkdir(0o750)
            try:
                os.link(incoming, artifacts.job)
            except FileExistsError:
                incoming.unlink()
                self.finish_submission(job.job_id)
                raise Duplicate(f"job {job.job_id!r} is there already") from None
            # The id is owned: job.json and the file in incoming/ are one inode with two links. A
            # crash here is met by `recover_incoming`, or by `finish_submission` at the next use of
            # the id; both queue the job. Nobody was answered yet, and the same id again is a
            # duplicate.
            state = first_state(job)
            target = self.paths.file(state, job.key)
            try:
                # This rename queues the job. Killed after it, the job is queued, and its submitter
                # asks again; a power cut before the syncs may undo any of the three names, and each
                # combination is one of the states above.
                os.rename(incoming, target)
                # not incoming/: a name that a power cut brings back there has three links, so
                # recovery removes it; and each fsync of a directory costs the disk a flush
                self._sync(artifacts.directory, self.roots.artifacts_root, target.parent)
            except OSError:
                self._withdraw(target, incoming, artifacts.job)
                raise
        return state

    def submit_once(
        self, job: Job, document: Document, digest: str, *, floor_bytes: int = 0
    ) -> tuple[Job, bool]:
        """Queue a job for an idempotency key, unless the key has one; durable when it returns.

        Tells the key's job, and whether it is new; its id is not `job`'s where an earlier delivery
        chose another. `digest` is that of the key and its scope. Raises what `submit` raises.
        """
        refuse_below(self.paths.incoming, floor_bytes)
        while True:
            job_id = self._key_owner(job.job_id, digest)
            job, document = replace(job, job_id=job_id), with_key(document, job_id, digest)
            try:
                if (first := self._submission_of(job_id, digest)) is not None:
                    return first, False
                self.submit(job, document, floor_bytes=floor_bytes)
            except Duplicate:
                if _key_of(self.roots.artifacts(job_id).job) != digest:
                    raise
            else:
                return job, True

    def _key_owner(self, job_id: str, digest: str) -> str:
        """Return the id that a key's job has: this one, if the key is new. Durable when it
        returns.
        """
        path = self.paths.key(digest)
        with atomic.disk_trouble(path):
            try:
                if not path.is_symlink() and self.roots.artifacts(job_id).job.exists():
                    raise Duplicate(f"job {job_id!r} is there already")
                os.symlink(job_id, path)
            except FileExistsError:
                job_id = os.readlink(path)
            # A crash after this leaves a key whose job is not there: the next delivery finds the id
            # in the link, and submits the job under it. before the job is queued: a job without its
            # key would be queued again
            atomic.sync_directory(path.parent)
        return job_id

    def _submission_of(self, job_id: str, digest: str) -> Job | None:
        """Return the job of a key, when its submission has ended; None: there is none.

        Its submitter holds the flock of its inode until all is durable; what a dead one left is
        finished here.
        """
        artifacts = self.roots.artifacts(job_id)
        if not _ended_submission(artifacts.job) or _key_of(artifacts.job) != digest:
            return None
        job = read_job(artifacts.job)
        with atomic.disk_trouble(artifacts.directory):
            if self.find(job) is None:
                self.recover_incoming()
                self.finish_submission(job_id)
            self._sync(artifacts.directory, self.roots.artifacts_root)
            self._sync(self.paths.state(first_state(job)))
        return job

    def _withdraw(self, queued: Path, incoming: Path, owner: Path) -> None:
        """Frees the id of a submission that is not acknowledged; not where a runner has it by now.

        What the disk refuses here too is met by recovery: the job is then queued, whole.
        """
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):
                os.rename(queued, incoming)
            if incoming.exists():
                owner.unlink()

    @contextlib.contextmanager
    def _incoming(self, content: bytes) -> Iterator[Path]:
        """Return a file in incoming/ with this content on the disk, its flock held meanwhile."""
        while True:
            path = self.paths.incoming / os.urandom(16).hex()
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            try:
                # a recovery may have met the file before its lock was taken, and removed it
                if lock(descriptor, wait=False) and os.fstat(descriptor).st_nlink:
                    try:
                        atomic.write_synced(descriptor, content)
                        yield path
                    except BaseException:
                        path.unlink(missing_ok=True)
                        raise
                    return
            finally:
                os.close(descriptor)

    def _sync(self, *directories: Path) -> None:
        for directory in directories:
            atomic.sync_directory(directory)

    def finish_submission(self, job_id: str) -> bool:
        """Queue a job whose submitter died when it owned the id; False: nothing was to do."""
        artifacts = self.roots.artifacts(job_id)
        if _links(artifacts.job) != 1:
            return False
        with hold_lock(artifacts.lock, wait=True):
            if _links(artifacts.job) != 1:
                return False
            # link(2), not rename: job.json stays where it is, and two who finish the same
            # submission make the same name. A crash before the sync leaves one link again: it is
            # done anew.
            job = read_job(artifacts.job)
            state = first_state(job)
            os.link(artifacts.job, self.paths.file(state, job.key))
            atomic.sync_directory(self.paths.state(state))
        return True

    def recover_incoming(self) -> int:
        """Finishes or removes what dead submitters left in incoming/; how many were queued."""
        return sum(self._recover(Path(entry.path)) for entry in os.scandir(self.paths.incoming))

    def _recover(self, path: Path) -> bool:
        if path.name.startswith(IMPORT):  # its recovery knows what else belongs to it: see bringing
            return False
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:  # its submitter was quicker
            return False
        try:
            if not lock(descriptor, wait=False):
                return False
            if path.name.startswith("."):  # a trial of the disk: see filesystem
                (self.roots.artifacts_root / path.name).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                return False
            found = os.fstat(descriptor)
            # The flock is free, so the submitter is dead. Two links: it owned its id, and died
            # before the rename; the job is queued now.
            queued = found.st_nlink == 2 and self._queue_incoming(path, found)
            # one link: never owned its id; three: its job was queued by somebody else
            path.unlink(missing_ok=True)
            return queued
        finally:
            os.close(descriptor)

    def _queue_incoming(self, path: Path, found: os.stat_result) -> bool:
        try:
            job = read_job(path)
            artifacts = self.roots.artifacts(job.job_id)
            owned = os.path.samestat(artifacts.job.stat(), found)
        except (Damaged, FileNotFoundError):  # its submitter ended just now, or it owns no id
            return False
        if not owned:
            return False
        state = first_state(job)
        os.rename(path, self.paths.file(state, job.key))
        self._sync(self.paths.incoming, artifacts.directory, self.roots.artifacts_root)
        atomic.sync_directory(self.paths.state(state))
        return True

    def forget_key(self, job_id: str) -> None:
        """Frees the idempotency key that a job came with: delivered again, it is a new job."""
        digest = _key_of(self.roots.artifacts(job_id).job) or ""
        if not _DIGEST.fullmatch(digest):  # anybody may write such a word into a job
            return
        path = self.paths.key(digest)
        with contextlib.suppress(OSError):  # it never had one
            if os.readlink(path) == job_id:
                path.unlink()

    # ---- find ---------------------------------------------------------------------------------

    def find(self, job: Job) -> tuple[State, Key, str | None] | None:
        """Return where the queue file of a job is: state, key, and its slot when it is running.

        No directory is listed but running/, which has an entry a slot. None: nowhere. A file that
        moves while it is looked for is met on a second look.
        """
        for _ in range(3):
            for state in State:
                if state is not State.PARKED:
                    for key in (replace(job.key, taken=taken) for taken in range(MAX_TAKEN + 1)):
                        for slot in self._places(state):
                            if self.paths.file(state, key, slot).exists():
                                return state, key, slot
            if (place := self._find_by_listing(job)) is not None:
                return place
        return None

    def _find_by_listing(self, job: Job) -> tuple[State, Key, str | None] | None:
        """Return where a job is that no name leads to: it is parked, or its priority was
        changed.
        """
        changed = self.roots.artifacts(job.job_id).edited_job.exists()
        for state in State if changed else (State.PARKED,):
            for found, slot in self.list_state(state):
                if found.job_id == job.job_id:
                    return state, found, slot
        return None

    def _places(self, state: State) -> Sequence[str | None]:
        return self.slots() if state is State.RUNNING else (None,)

    def slots(self) -> list[str]:
        """Return the names of the slots that have a directory, sorted."""
        try:
            return sorted(os.listdir(self.paths.running))
        except FileNotFoundError:
            return []

    def list_state(self, state: State) -> Iterator[tuple[Key, str | None]]:
        """Yield the keys in a state with their slots, in no order; what is no queue file is left
        out.
        """
        if state is State.PARKED:
            for _, parked in self.list_parked():
                yield parked, None
            return
        for slot in self._places(state):
            directory = self.paths.state(state) if slot is None else self.paths.slot(slot)
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        key = Key.parse(entry.name)
                        if key is not None:
                            yield key, slot
            except (FileNotFoundError, NotADirectoryError):
                continue

    def list_parked(self) -> list[tuple[datetime, Key]]:
        """Return the parked jobs, with the times at which they go on, the soonest first."""
        return list(self.each_parked())

    def each_parked(self) -> Iterator[tuple[datetime, Key]]:
        """Yield the same one by one: who only wants the soonest doesn't read all the names."""
        try:
            names = sorted(os.listdir(self.paths.state(State.PARKED)))
        except FileNotFoundError:
            return
        for name in names:
            if (parked := parked_key(name)) is not None:
                yield parked

    def file_of(self, state: State, key: Key, slot: str | None = None) -> Path:
        """Return the queue file of a job that was found; a parked one is looked for by its key."""
        if state is State.PARKED:
            for until, parked in self.list_parked():
                if parked == key:
                    return self.paths.parked_file(key, until)
        return self.paths.file(state, key, slot)

    # ---- move ---------------------------------------------------------------------------------

    def move(self, source: Path, target: Path) -> bool:
        """Move a queue file and make it durable; False when somebody else moved it first."""
        try:
            os.rename(source, target)
        except FileNotFoundError:
            return False
        with atomic.disk_trouble(target):
            self._sync(target.parent, source.parent)
        return True


def first_state(job: Job) -> State:
    """Return where a new job is queued."""
    return State.AWAITING_APPROVAL if job.policy.requires_approval else State.PENDING


def with_key(document: Document, job_id: str, digest: str) -> Document:
    """Return the document of a job that is submitted under this id for this key. Pure."""
    source = document["source"]
    meta = {**source.get("meta", {}), "idempotency": digest}
    return {**document, "job_id": job_id, "source": {**source, "meta": meta}}


def _key_of(path: Path) -> str | None:
    """Return the digest of the key that a job came with; None: without one, or there is no job."""
    try:
        document = read_document(path)
    except FileNotFoundError:
        return None
    digest: str | None = document["source"].get("meta", {}).get("idempotency")
    return digest


def _ended_submission(path: Path) -> bool:
    """Wait for the end of the submission that a job.json belongs to; False: there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return lock(descriptor, wait=True) and os.fstat(descriptor).st_nlink > 0
    finally:
        os.close(descriptor)


def read_job(path: Path) -> Job:
    """Return the job in a queue file or job.json, as it was submitted. Raises Damaged."""
    return make_from(path, read_document(path), job_of)


def current_document(paths: ArtifactPaths) -> Document:
    """Return the document of a job as it is by now: as it was submitted, or edited since.

    Raises Damaged, and FileNotFoundError where there is none.
    """
    try:
        document = read_document(paths.edited_job)
    except FileNotFoundError:
        document = read_document(paths.job)
    make_from(paths.job, document, job_of)
    return document


def current_job(paths: ArtifactPaths) -> Job:
    """Return the job as it is by now. Raises Damaged, where it is missing, too."""
    try:
        return job_of(current_document(paths))
    except FileNotFoundError as problem:
        raise Damaged(f"{paths.job}: missing") from problem


def _links(path: Path) -> int:
    try:
        return path.lstat().st_nlink
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return 0
        raise
