"""A directory that an agent could write, listed without trusting it.

No symbolic link is followed and no file is opened. Paths below the root are bytes, relative,
without a leading slash: a name need not be text.

A git tree holds regular files and symbolic links. What it can't hold is told apart: *opaque*
entries (whatever git refuses as a name, `.git` first of all), directories with nothing in them,
permissions other than 0644, 0755; and FIFOs, sockets and devices, which are left out everywhere.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agentorch.core.errors import AgentorchError

# git reads a file whole, and so would an attempt that left a sparse file of a terabyte.
MAX_FILE_BYTES = 1 << 30
FILE_MODE = 0o644
EXECUTABLE_MODE = 0o755
DIRECTORY_MODE = 0o755

# verify_path of git's read-cache.c: the names that can be a repository on some file system.
_REFUSED = re.compile(rb"(?i)(?:\.git|git~1)[ .]*(?:[:\\].*)?", re.DOTALL)
_REFUSED_LINK = re.compile(rb"(?i)(?:\.gitmodules|gi[^.]*~[0-9])[ .]*(?::.*)?", re.DOTALL)
# git opens these wherever it meets them, and opening a FIFO waits for ever.
_OPENED_BY_GIT = frozenset({b".gitattributes", b".gitignore", b".gitmodules"})


class WorkspaceTrouble(AgentorchError):
    """The workspace can't be used as asked. `code` is one word for programs.

    source_missing, source_unreadable, symlink_refused, base_gone: it can't be made;
    workspace_lost: discard it and prepare it again; patch_mismatch, patch_refused: the patch;
    file_too_large, path_too_long, unreadable: the attempt left what can't be kept.
    """

    def __init__(self, code: str, *problems: str) -> None:
        super().__init__(*problems)
        self.code = code


class PatchRefused(WorkspaceTrouble):
    """The patch does not fit the workspace, is no patch, or reaches out of it."""

    def __init__(self, *problems: str) -> None:
        super().__init__("patch_refused", *problems)


@dataclass
class Listing:
    """The contents of a directory. `modes` names only the permissions that git would not restore.

    `backdated`: git's cache can't be believed this time (`hides_change`). `mark` is the same for
    two listings between which nobody touched a file.
    """

    files: list[bytes] = field(default_factory=list)
    directories: list[bytes] = field(default_factory=list)
    opaque: list[bytes] = field(default_factory=list)
    modes: dict[bytes, int] = field(default_factory=dict)
    backdated: bool = False
    mark: str = ""

    def empty_directories(self) -> list[bytes]:
        """Return the directories that hold no file that git could keep, at any depth."""
        filled: set[bytes] = set()
        for path in self.files:
            parent = os.path.dirname(path)
            while parent and parent not in filled:
                filled.add(parent)
                parent = os.path.dirname(parent)
        return [path for path in self.directories if path not in filled]


def is_opaque(name: bytes, mode: int) -> bool:
    """Return whether git refuses an entry of this name. Pure."""
    if _REFUSED.fullmatch(name):
        return True
    return stat.S_ISLNK(mode) and _REFUSED_LINK.fullmatch(name) is not None


def usual_mode(mode: int) -> int:
    """Return the permissions that an entry gets back when git makes it again. Pure."""
    if stat.S_ISDIR(mode):
        return DIRECTORY_MODE
    return EXECUTABLE_MODE if mode & 0o100 else FILE_MODE


def hides_change(status: os.stat_result, index_ns: int) -> bool:
    """Return whether git could take a changed file for unchanged. Pure.

    git compares times by the second, and mistrusts only an mtime as new as its index. A file that
    got an older mtime after a change in the very second of the index looks unchanged to it.
    """
    changed_since = status.st_ctime_ns >= index_ns > status.st_mtime_ns
    return changed_since and status.st_ctime_ns // 10**9 == index_ns // 10**9


def is_directory(path: Path) -> bool:
    """Return whether a real directory is there, not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):  # then nothing is there
        return False


def refuse_symlinks(path: Path) -> None:
    """Raise WorkspaceTrouble where a component of the absolute path is a symbolic link."""
    for place in [*reversed(path.parents), path]:
        if place.is_symlink():
            raise WorkspaceTrouble(
                "symlink_refused",
                f"{path}: {str(place)!r} is a symbolic link; name the directory that it points to",
            )


# ---- listing ----------------------------------------------------------------------------------


def listing(root: Path, index_ns: int = 0) -> Listing:
    """List a work tree and put right what would stop git; `index_ns` is its index's mtime.

    Directories and files that their owner can't read are made readable. A FIFO, socket or device
    under a name that git opens is removed. Raises WorkspaceTrouble.
    """
    if not is_directory(root):
        raise WorkspaceTrouble("workspace_lost", f"{root}: it is not a directory any more")
    with reading_work():
        return _listing(root, index_ns)


@contextmanager
def reading_work() -> Iterator[None]:
    """Turn what an agent left in the way of reading into WorkspaceTrouble."""
    try:
        yield
    except PermissionError as problem:
        words = f"{os.fsdecode(problem.filename)}: {problem.strerror}; does another user own it?"
        raise WorkspaceTrouble("unreadable", words) from problem
    except OSError as problem:
        if problem.errno != errno.ENAMETOOLONG:
            raise
        start = os.fsdecode(problem.filename)[:200]
        raise WorkspaceTrouble("path_too_long", f"{start!r}…: nested too deep") from problem


def _listing(root: Path, index_ns: int) -> Listing:
    found = Listing()
    top = os.fsencode(root)
    open_up(top, root.lstat())
    waiting = [b""]
    seen: list[tuple[bytes, ...]] = []
    while waiting:
        prefix = waiting.pop()
        for entry in entries(os.path.join(top, prefix)):
            path = prefix + entry.name
            status = entry.stat(follow_symlinks=False)
            if is_opaque(entry.name, status.st_mode):
                found.opaque.append(path)
            elif stat.S_ISDIR(status.st_mode):
                open_up(entry.path, status)
                _note(found, path, status)
                seen.append(_entry_mark(path, status))
                found.directories.append(path)
                waiting.append(path + b"/")
            elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                _take_file(found, path, entry, status, index_ns)
                seen.append(_entry_mark(path, status))
            elif entry.name in _OPENED_BY_GIT:
                os.unlink(entry.path)
    found.files.sort()
    found.mark = _mark(seen)
    return found


def _mark(seen: list[tuple[bytes, ...]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for one in sorted(seen):
        digest.update(b"\0".join(one) + b"\0\0")
    return digest.hexdigest()


def _entry_mark(path: bytes, status: os.stat_result) -> tuple[bytes, ...]:
    if stat.S_ISDIR(status.st_mode):
        return path, b"%d" % status.st_mode
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return path, b"%d %d %d" % (status.st_mode, status.st_size, status.st_ino), b"%d %d" % times


def _take_file(
    found: Listing, path: bytes, entry: os.DirEntry[bytes], status: os.stat_result, index_ns: int
) -> None:
    if stat.S_ISREG(status.st_mode):
        refuse_large(path, status)
        open_up(entry.path, status)
        _note(found, path, status)
    if hides_change(status, index_ns):
        found.backdated = True
    found.files.append(path)


def _note(found: Listing, path: bytes, status: os.stat_result) -> None:
    mode = status.st_mode & 0o777 | _needed_permission(status.st_mode)
    if mode != usual_mode(status.st_mode):
        found.modes[path] = mode


def _needed_permission(mode: int) -> int:
    return 0o500 if stat.S_ISDIR(mode) else 0o400


def refuse_large(path: bytes, status: os.stat_result) -> None:
    """Raise WorkspaceTrouble where a file is too large to be kept."""
    if status.st_size > MAX_FILE_BYTES:
        raise WorkspaceTrouble(
            "file_too_large",
            f"{os.fsdecode(path)!r}: {status.st_size} bytes; a workspace keeps files of up to"
            f" {MAX_FILE_BYTES} bytes",
        )


def entries(directory: bytes) -> Iterator[os.DirEntry[bytes]]:
    """Yield what a directory holds."""
    with os.scandir(directory) as found:
        yield from found


def open_up(path: bytes, status: os.stat_result) -> None:
    """Give the owner back the permission to read; the path is not followed."""
    missing = _needed_permission(status.st_mode) & ~status.st_mode
    if missing:
        change_mode(path, stat.S_IMODE(status.st_mode) | missing)


def change_mode(path: bytes, mode: int) -> None:
    """chmod(2) that never follows a link and needs no permission on the file itself."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
            os.chmod(f"/proc/self/fd/{descriptor}", mode)
    except PermissionError as problem:
        raise PermissionError(problem.errno, problem.strerror, path) from None
    finally:
        os.close(descriptor)
