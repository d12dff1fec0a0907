"""A job's workspace: made once, looked at before and after each step, put back for a new attempt.

`workspace.json` is its commit record: where it is missing, whatever else is there is half made and
made anew. It is replaced after the trees and copies that it names are written. They are not
synced, so it also has the boot in which that was: after a reboot, nothing in `work/` is
believed; it is written anew out of the recorded trees, and `workspace_lost` says that they are
gone too.

What is put back, exactly: bytes, symbolic links, permissions, ignored files, empty directories,
and the agents' `.git` with whatever else git can't hold (`tree.is_opaque`), as opaque copies.
FIFOs, sockets and devices are not kept, nor are owners, mtimes and extended attributes. After a
reboot, or where the copies were being replaced, `.git` is that of a fresh clone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from agentorch.storage import atomic
from agentorch.storage.copy_tree import (
    change_modes,
    copy_opaque,
    copy_tree,
    identity,
    make_directories,
    remove,
)
from agentorch.storage.paths import WorkspacePaths
from agentorch.storage.untrusted_tree import (
    Listing,
    PatchRefused,
    WorkspaceTrouble,
    change_mode,
    is_directory,
    listing,
    reading_work,
    refuse_symlinks,
)
from agentorch.systemd.ids import boot_id
from agentorch.workspace.git import EPOCH, INDEX, lost_workspace
from agentorch.workspace.history import VISIBLE_INDEX, History, Snapshot
from agentorch.workspace.record import Begun, Record, decode, encode
from agentorch.workspace.source import Source, reading, source_of

__all__ = [
    "Change",
    "PatchRefused",
    "Snapshot",
    "Source",
    "Workspace",
    "WorkspaceTrouble",
    "source_of",
]


@dataclass(frozen=True)
class Change:
    """The change of a work tree: a patch that was proven to lead from before to after."""

    patch: bytes
    changed: bool
    after: Snapshot


class Workspace:
    """The workspace at `paths`. One process uses it at a time, and no agent runs meanwhile."""

    def __init__(self, paths: WorkspacePaths) -> None:
        self.paths = paths
        self.history = History(paths.history)
        self._boot = boot_id()

    def exists(self) -> bool:
        """Return whether the workspace was made, whole."""
        return self._read() is not None

    @property
    def base(self) -> Snapshot:
        """Return what every step started from. Raises WorkspaceTrouble where there is no
        workspace.
        """
        return self._read_record().base

    @property
    def commit(self) -> str:
        """The commit of the base, in the source and in the agents' `.git`."""
        return self._read_record().commit

    @property
    def tree(self) -> str:
        """The whole tree of the base."""
        return self._read_record().base.full

    def prepare(
        self,
        source: Source,
        *,
        excluded: Sequence[Path] = (),
        patches: Sequence[bytes] = (),
        commit: str | None = None,
        when: datetime = EPOCH,
    ) -> None:
        """Make the workspace, unless it is there.

        `excluded` directories are not copied. To make a lost one again: `patches` are those of
        the steps that ended, in order, and `commit` the base that they are for. A commit of ours
        is dated `when`. Raises WorkspaceTrouble; PatchRefused for a patch.
        """
        refuse_symlinks(self.paths.directory)
        if self._read() is not None:
            return
        with atomic.disk_trouble(self.paths.directory):
            self._clear()
            base_commit, base = self._make(source, excluded, commit, when)
            for patch in filter(None, patches):
                self.history.apply(self.paths.work, patch)
            if any(patches):
                last, mark = self._snapshot(base)
            else:
                last, mark = base, listing(self.paths.work).mark
            self._write(Record(base_commit, base, last, self._boot, mark=mark))

    def adopt(self) -> None:
        """Take a work tree that is a directory of the user's: it is looked at, never put back."""
        if self.paths.elsewhere is None:
            raise ValueError("only a work tree that is elsewhere can be adopted")
        with atomic.disk_trouble(self.paths.directory):
            remove(self.paths.directory)
            atomic.make_directory(self.paths.directory)
            self.history.create()
            base, mark = self._snapshot(None)
            self._write(Record("", base, base, self._boot, mark=mark))

    def begin(self, step_id: str, visit: int) -> Snapshot:
        """Return the work tree as a visit of a step finds it; durable when it returns.

        The first time for a visit this is what the previous step left. A later time, it is put
        back to what it was then; where another visit began since, without what the agents did to
        `.git`. Raises WorkspaceTrouble(workspace_lost).
        """
        visited = f"{step_id}:{visit}"
        refuse_symlinks(self.paths.directory)
        record = self._read_record()
        begun = record.begun
        with atomic.disk_trouble(self.paths.directory):
            if begun is not None and (begun.step_id, begun.visit) == (step_id, visit):
                self._put_back(record, begun.before, begun)
                if record.boot == self._boot:
                    return begun.before
            elif visited in record.visits:
                self._put_back(record, record.visits[visited], None)
            elif record.boot != self._boot or not is_directory(self.paths.work):
                self._put_back(record, record.last, None)
            begun, mark = self._take(record, step_id, visit)
            self._write(
                replace(
                    record,
                    last=begun.before,
                    boot=self._boot,
                    begun=begun,
                    visits={**record.visits, visited: begun.before},
                    mark=mark,
                )
            )
        return begun.before

    def began(self, step_id: str, visit: int) -> Snapshot | None:
        """Return the work tree as a visit found it; None where that is not known any more."""
        return self._read_record().visits.get(f"{step_id}:{visit}")

    def end(self, before: Snapshot) -> Change:
        """Return what came of the work tree since `before`; durable when it returns.

        Raises WorkspaceTrouble: patch_mismatch, file_too_large, workspace_lost.
        """
        record = self._read_record()
        with atomic.disk_trouble(self.paths.directory):
            after, mark = self._snapshot(before)
            change = self._between(before, after)
            if (after, mark) != (record.last, record.mark):
                self._write(replace(record, last=after, mark=mark))
        return change

    def job_change(self) -> Change:
        """Return what came of the work tree since the base; of one that is gone, until it went."""
        record = self._read_record()
        if not is_directory(self.paths.work):
            return self._between(record.base, record.last)
        found = listing(self.paths.work, self.history.index_ns())
        if self._is_as_recorded(found, record):
            return self._between(record.base, record.last)
        return self._between(record.base, self._snapshot(record.last)[0])

    def apply(self, patch: bytes) -> bool:
        """Apply a patch to the work tree; False where it was applied already, or is empty.

        Belongs between `begin` and `end`: what it did is then undone for a new attempt. Raises
        PatchRefused, and changes nothing, where it doesn't fit or would touch `.git` or anything
        outside the tree.
        """
        listing(self.paths.work)
        if not patch or self.history.is_applied(self.paths.work, patch):
            return False
        self.history.apply(self.paths.work, patch)
        return True

    def drop(self) -> None:
        """Remove the work tree of an attempt that failed; the next `begin` puts it back."""
        if self.paths.elsewhere is None:
            remove(self.paths.work)

    def mend(self) -> bool:
        """Put the work tree back as it was recorded last, where it is gone or from before a
        reboot, for who looks at it; False where nothing was to do.
        """
        record = self._read_record()
        if record.boot == self._boot and is_directory(self.paths.work):
            return False
        with atomic.disk_trouble(self.paths.directory):
            # the record stays as it is: whatever else it names is still from before the reboot
            self._put_back(record, record.last, None)
        return True

    def forget(self) -> None:
        """End an adoption: all that is ours goes, the work tree stays."""
        if self.paths.elsewhere is not None:
            remove(self.paths.directory)

    def discard(self) -> None:
        """Remove the whole directory, read-only trees too."""
        remove(self.paths.directory)

    # ---- making it ----------------------------------------------------------------------------

    def _clear(self) -> None:
        paths = self.paths
        for path in (paths.work, paths.history, paths.git_before, paths.scratch):
            remove(path)

    def _make(
        self, source: Source, excluded: Sequence[Path], commit: str | None, when: datetime
    ) -> tuple[str, Snapshot]:
        atomic.make_directory(self.paths.directory)
        self.paths.work.mkdir(0o750)
        if source.kind == "git" and source.path is not None:
            return self._clone(source.path, commit, when)
        return self._copy(source.path, excluded, when)

    def _clone(self, source: Path, commit: str | None, when: datetime) -> tuple[str, Snapshot]:
        self._enter(source)
        self.history.clone(source)
        head = self.history.resolve("HEAD^{commit}")
        if commit is not None and commit != head:
            head = self._rewind(source, commit)
        if head is None:
            return self._first_commit(when)
        self.history.checkout(self.paths.work, head)
        self.history.plant(self.paths.work / ".git", head)
        self.history.forget_submodules(self.paths.work)
        tree = self.history.tree_of_index()
        return head, Snapshot(tree, tree)

    def _rewind(self, source: Path, commit: str) -> str:
        if self.history.resolve(f"{commit}^{{commit}}") is None:
            problem = f"{source}: HEAD does not contain the base commit {commit} any more"
            raise WorkspaceTrouble("base_gone", problem)
        self.history.rewind(commit)
        return commit

    def _copy(
        self, source: Path | None, excluded: Sequence[Path], when: datetime
    ) -> tuple[str, Snapshot]:
        if source is not None:
            self._enter(source)
            ours = [path for path in (*excluded, self.paths.directory) if path.exists()]
            with reading(source):
                copy_tree(source, self.paths.work, excluded={identity(path) for path in ours})
            self.paths.work.chmod(0o750)
        remove(self.paths.work / ".git")
        self.history.create()
        return self._first_commit(when)

    def _enter(self, source: Path) -> None:
        with reading(source):
            refuse_symlinks(source)
            os.scandir(source).close()

    def _first_commit(self, when: datetime) -> tuple[str, Snapshot]:
        base, _ = self._snapshot(None)
        commit = self.history.commit(base.visible, when)
        index = INDEX if base.visible == base.full else VISIBLE_INDEX
        self.history.plant(self.paths.work / ".git", commit, index)
        return commit, base

    # ---- looking at it ------------------------------------------------------------------------

    def _is_as_recorded(self, found: Listing, record: Record) -> bool:
        """Return whether nobody touched the work tree since its trees were recorded: no git is
        asked.
        """
        return record.mark == found.mark and record.boot == self._boot

    def _snapshot(self, last: Snapshot | None) -> tuple[Snapshot, str]:
        """Return the trees of the work tree, and the mark of the listing that they were made
        from.
        """
        found = listing(self.paths.work, self.history.index_ns())
        return self.history.snapshot(self.paths.work, found, last), found.mark

    def _take(self, record: Record, step_id: str, visit: int) -> tuple[Begun, str]:
        found = listing(self.paths.work, self.history.index_ns())
        before = record.last
        if not self._is_as_recorded(found, record):
            before = self.history.snapshot(self.paths.work, found, record.last)
        self._keep_opaque(found.opaque, () if record.begun is None else record.begun.opaque)
        begun = Begun(
            step_id,
            visit,
            before,
            opaque=tuple(found.opaque),
            directories=tuple(found.empty_directories()),
            modes=found.modes,
        )
        return begun, found.mark

    def _keep_opaque(self, opaque: Sequence[bytes], copied: Sequence[bytes]) -> None:
        """Brings the copies up to date, out of their place: there they are whole or missing."""
        copies = self.paths.scratch / "git.before"
        remove(self.paths.scratch)
        self.paths.scratch.mkdir(0o750)
        if tuple(opaque) == tuple(copied) and is_directory(self.paths.git_before):
            self.paths.git_before.rename(copies)
        remove(self.paths.git_before)
        with reading_work():
            for path in opaque:
                copy_opaque(path, self.paths.work, copies, again=True)
        if opaque:
            copies.rename(self.paths.git_before)
        self.paths.scratch.rmdir()

    def _between(self, before: Snapshot, after: Snapshot) -> Change:
        if after.visible == before.visible:
            return Change(b"", changed=False, after=after)
        patch = self.history.patch(before.visible, after.visible)
        return Change(patch, changed=True, after=after)

    # ---- putting it back ----------------------------------------------------------------------

    def _put_back(self, record: Record, snapshot: Snapshot, begun: Begun | None) -> None:
        """Make the work tree anew beside the old one, then exchange them."""
        fresh = self.paths.scratch / "work"
        remove(self.paths.scratch)
        self.paths.scratch.mkdir(0o750)
        fresh.mkdir(0o750)
        self.history.checkout(fresh, snapshot.full)
        if begun is not None:
            make_directories(fresh, begun.directories)
        if begun is not None and self._believes_copies(record, begun):
            for path in begun.opaque:
                copy_opaque(path, self.paths.git_before, fresh)
        else:
            self.history.replant(fresh / ".git", record.commit)
        if begun is not None:
            change_modes(fresh, begun.modes)
        self._change_over(fresh)

    def _believes_copies(self, record: Record, begun: Begun) -> bool:
        whole = is_directory(self.paths.git_before) or not begun.opaque
        return whole and record.boot == self._boot

    def _change_over(self, fresh: Path) -> None:
        work = self.paths.work
        if is_directory(work):
            # moving a directory writes its `..`
            change_mode(os.fsencode(work), 0o750)
        if os.path.lexists(work):
            work.rename(self.paths.scratch / "old")
        fresh.rename(work)
        remove(self.paths.scratch)

    # ---- the record ---------------------------------------------------------------------------

    def _read(self) -> Record | None:
        try:
            return decode(json.loads(self.paths.record.read_bytes()))
        except FileNotFoundError:  # not made, or only half
            return None
        except (ValueError, KeyError, TypeError) as problem:
            raise lost_workspace(f"{self.paths.record}: {problem!r}") from problem

    def _read_record(self) -> Record:
        record = self._read()
        if record is None:
            raise lost_workspace(f"{self.paths.record} is missing")
        return record

    def _write(self, record: Record) -> None:
        atomic.replace_json(self.paths.record, encode(record))
