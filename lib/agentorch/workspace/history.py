"""`history.git`: the trees of a work tree, written and compared where no agent can reach.

What is read of a work tree are the bytes of the files that we name, and .gitignore;
info/attributes takes the effect from every .gitattributes. So a file's blob is its content, and
the work tree of a clone holds what the repository holds: LF, UTF-8, `$Id$`, LFS pointers.

    history.git/info/attributes     takes the effect from every attribute
    history.git/index               the last full tree, with git's cache of stat(2)
    history.git/index.visible       the last visible tree, where it is another
    history.git/index.check         what a patch comes to, before it is handed out

Objects are not synced one by one: whoever comes back after a power cut must be ready to find
them missing (`workspace_lost`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agentorch.storage.copy_tree import copy_tree
from agentorch.storage.untrusted_tree import Listing, PatchRefused, WorkspaceTrouble
from agentorch.workspace import git
from agentorch.workspace.git import Place

VISIBLE_INDEX = "index.visible"
CHECK_INDEX = "index.check"

# `!text` would let an older `crlf` attribute speak; `-working-tree-encoding` is an error to git.
ATTRIBUTES = b"* -text -ident -filter !working-tree-encoding !eol !diff !whitespace\n"

# The agents' own repository converts no more than ours does, and has a name to commit under.
AGENT_CONFIGURATION = """\
[core]
\trepositoryformatversion = {version}
\tfilemode = true
\tbare = false
\tlogallrefupdates = true
[user]
\tname = agentorch
\temail = agentorch@localhost
{extensions}"""


@dataclass(frozen=True)
class Snapshot:
    """A work tree at one moment: `full` for putting it back, `visible` for patches.

    `visible` is without the files that a .gitignore hides and that were not visible before.
    """

    full: str
    visible: str


def agent_configuration(commit: str) -> bytes:
    """Return the configuration of a repository that holds this commit; its length tells the hash.

    Pure.
    """
    sha256 = len(commit) == 64
    extensions = "[extensions]\n\tobjectFormat = sha256\n" if sha256 else ""
    return AGENT_CONFIGURATION.format(version=int(sha256), extensions=extensions).encode()


class History:
    """The repository at `directory`. One process uses it at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._indexed: frozenset[bytes] | None = None

    # ---- making it ----------------------------------------------------------------------------

    def create(self) -> None:
        """Make it, empty."""
        git.output(git.init_argv(self.directory), None)
        _overrule_attributes(self.directory)

    def clone(self, source: Path) -> None:
        """Make it out of what HEAD of a local repository reaches. Raises WorkspaceTrouble."""
        ended = git.run(git.clone_argv(source, self.directory), None)
        if ended.returncode:
            problem = f"{source}: can't be cloned: {git.words(ended.stderr)}"
            raise WorkspaceTrouble("source_unreadable", problem)
        _overrule_attributes(self.directory)

    def resolve(self, name: str) -> str | None:
        """Return the object that a name stands for, None where it stands for nothing here."""
        ended = git.run(["rev-parse", "--verify", "--quiet", name], self._place())
        return None if ended.returncode else ended.stdout.decode().strip()

    def commit(self, tree: str, when: datetime) -> str:
        """Make the one commit of a history that has none, packed for `plant`."""
        here = self._place()
        commit = git.output(["commit-tree", "-m", "base", tree], here, when=when).decode().strip()
        git.output(["update-ref", "HEAD", commit], here)
        pack = self.directory / "objects" / "pack" / "pack"
        git.output(git.pack_argv(pack), here, stdin=b"HEAD\n")
        return commit

    def rewind(self, commit: str) -> None:
        """Put HEAD, and the branch that it names, to an earlier commit."""
        git.output(["update-ref", "HEAD", commit], self._place())

    def plant(self, target: Path, commit: str, index: str = git.INDEX) -> None:
        """Make the agents' own repository: the history behind HEAD, clean, sharing nothing."""
        for name in ("refs", "objects/info", "info", "objects/pack"):
            (target / name).mkdir(0o755, parents=True, exist_ok=True)
        for name in ("HEAD", "packed-refs", "shallow", "refs", "objects/pack"):
            if (self.directory / name).exists():
                copy_tree(self.directory / name, target / name)
        if (self.directory / index).exists():
            copy_tree(self.directory / index, target / "index")
        (target / "config").write_bytes(agent_configuration(commit))
        _overrule_attributes(target)

    def replant(self, target: Path, commit: str) -> None:
        """`plant` for a work tree that was not just made: the index knows no file's stat(2)."""
        git.output(["read-tree", commit], self._place(None, CHECK_INDEX))
        self.plant(target, commit, CHECK_INDEX)

    # ---- trees --------------------------------------------------------------------------------

    def checkout(self, work: Path, tree: str) -> None:
        """Fill an empty directory with a tree; the index then knows its files."""
        self.distrust()
        git.output(git.checkout_argv(tree), self._place(work))

    def snapshot(self, work: Path, found: Listing, last: Snapshot | None) -> Snapshot:
        """Return the trees of what was found.

        `last` is the latest one, whose visible files stay so.
        """
        full = self._full(work, found)
        if last is not None and full == last.full:
            return last
        return Snapshot(full, self._visible(work, full, found, last))

    def index_ns(self) -> int:
        """Return when the index was last known to be right, 0 where there is none."""
        try:
            return (self.directory / git.INDEX).stat().st_mtime_ns
        except FileNotFoundError:  # nothing was taken yet
            return 0

    def distrust(self) -> None:
        """Forgets what is known of the files: the next tree is made of their bytes alone."""
        (self.directory / git.INDEX).unlink(missing_ok=True)
        self._indexed = None

    def names(self, tree: str) -> frozenset[bytes]:
        """Return the paths in a tree."""
        return _split_names(git.output(git.names_argv(tree), self._place()))

    def forget_submodules(self, work: Path) -> None:
        """Take the gitlinks out of the index: below a submodule's directory are plain files."""
        listed = git.output(["ls-files", "--stage", "-z"], self._place())
        entries = [entry.split(b"\t", 1) for entry in listed.split(b"\0") if entry]
        links = [path for kind, path in entries if kind.startswith(b"160000 ")]
        if links:
            self._forget(work, links)
        self._indexed = frozenset(path for _, path in entries) - frozenset(links)

    def tree_of_index(self, index: str = git.INDEX) -> str:
        """Write the index as a tree."""
        return git.output(["write-tree"], self._place(None, index)).decode().strip()

    def _full(self, work: Path, found: Listing) -> str:
        if found.backdated:
            self.distrust()
        files = frozenset(found.files)
        gone = self._known_paths() - files
        self._indexed = None
        if gone:
            self._forget(work, gone)
        self._add(work, found.files)
        self._indexed = files
        return self.tree_of_index()

    def _known_paths(self) -> frozenset[bytes]:
        if self._indexed is None:
            if not self.index_ns():
                return frozenset()
            return _split_names(git.output(["ls-files", "-z"], self._place()))
        return self._indexed

    def _add(self, work: Path, files: Iterable[bytes]) -> None:
        """Brings the index up to date with the files, and its mtime with when they were read.

        git writes no index that didn't change, and compares the bytes of every file that is as new
        as the index, each time again. So an index that was just found right gets a new mtime: that
        of the moment before, for what changes from then on must look as new as it.
        """
        before_ns = self.index_ns()
        os.utime(self.directory)
        started_ns = self.directory.stat().st_mtime_ns
        git.output(git.add_argv(), self._place(work), stdin=_join(files))
        if before_ns and self.index_ns() == before_ns:
            os.utime(self.directory / git.INDEX, ns=(started_ns, started_ns))

    def _forget(self, work: Path, paths: Iterable[bytes], index: str = git.INDEX) -> None:
        git.output(git.forget_argv(), self._place(work, index), stdin=_join(paths))

    def _visible(self, work: Path, full: str, found: Listing, last: Snapshot | None) -> str:
        if not any(os.path.basename(path) == b".gitignore" for path in found.files):
            return full
        shown = self.names(last.visible) if last else frozenset()
        hidden = self._ignored_paths(work, [path for path in found.files if path not in shown])
        if not hidden:
            return full
        shutil.copyfile(self.directory / git.INDEX, self.directory / VISIBLE_INDEX)
        self._forget(work, hidden, VISIBLE_INDEX)
        return self.tree_of_index(VISIBLE_INDEX)

    def _ignored_paths(self, work: Path, paths: Collection[bytes]) -> frozenset[bytes]:
        if not paths:
            return frozenset()
        # `./` keeps a name that starts with a colon from being read as pathspec magic
        asked = _join(b"./" + path for path in paths)
        ended = git.run(git.ignored_argv(), self._place(work), stdin=asked)
        if ended.returncode not in (0, 1):  # 1: none of them is ignored
            raise git.lost_workspace(f"git check-ignore: {git.words(ended.stderr)}")
        return frozenset(path.removeprefix(b"./") for path in _split_names(ended.stdout))

    def _place(self, work: Path | None = None, index: str = git.INDEX) -> Place:
        # a git that was killed leaves the lock of its index, and nobody else uses ours
        (self.directory / f"{index}.lock").unlink(missing_ok=True)
        return Place(self.directory, index, work)

    # ---- patches ------------------------------------------------------------------------------

    def patch(self, before: str, after: str) -> bytes:
        """Return the patch between two trees, proven by applying it. Raises WorkspaceTrouble."""
        for renames in (True, False):
            argv = git.patch_argv(before, after, renames=renames)
            patch = git.output(argv, self._place())
            if self._leads(before, patch) == after:
                return patch
        problem = f"the patch from tree {before} does not lead to tree {after}"
        raise WorkspaceTrouble("patch_mismatch", problem)

    def _leads(self, before: str, patch: bytes) -> str | None:
        check = self._place(None, CHECK_INDEX)
        git.output(["read-tree", before], check)
        if git.run(git.apply_argv("--cached"), check, stdin=patch).returncode:
            return None
        return self.tree_of_index(CHECK_INDEX)

    def apply(self, work: Path, patch: bytes) -> None:
        """Change the files as the patch says, all of them or none. Raises PatchRefused."""
        ended = git.run(git.apply_argv(), self._place(work), stdin=patch)
        if ended.returncode:
            raise PatchRefused(f"the patch can't be applied: {git.words(ended.stderr)}")

    def is_applied(self, work: Path, patch: bytes) -> bool:
        """Return whether the files are already as the patch would leave them."""
        argv = git.apply_argv("--check", "--reverse")
        ended = git.run(argv, self._place(work), stdin=patch)
        return ended.returncode == 0


def _overrule_attributes(repository: Path) -> None:
    (repository / "info").mkdir(0o755, exist_ok=True)
    (repository / "info" / "attributes").write_bytes(ATTRIBUTES)


def _join(paths: Iterable[bytes]) -> bytes:
    return b"".join(path + b"\0" for path in paths)


def _split_names(paths: bytes) -> frozenset[bytes]:
    return frozenset(path for path in paths.split(b"\0") if path)
