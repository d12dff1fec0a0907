"""Directory trees copied and removed: nothing shared with the copy, nothing followed.

Only directories, regular files and symbolic links are copied; a file is opened so that it can be
neither a link nor something that blocks.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from agentorch.core.errors import TryAgain
from agentorch.storage.untrusted_tree import (
    DIRECTORY_MODE,
    change_mode,
    entries,
    is_directory,
    open_up,
    refuse_large,
)


def identity(path: Path) -> tuple[int, int]:
    """Return what makes a file the same file, under whatever name."""
    status = path.stat()
    return status.st_dev, status.st_ino


def copy_tree(
    source: Path, target: Path, *, excluded: Collection[tuple[int, int]] = (), again: bool = False
) -> None:
    """Make `target` a copy of `source`: a directory, a regular file or a symbolic link.

    No byte is shared but by reflink. FIFOs, sockets, devices and what `excluded` names by identity
    are left out. `again`: the source is a workspace's, so what can't be read is made readable;
    the target is an older copy of it, and what did not change since stays. A changed file can't
    pass for an unchanged one: the copy's mtime is the source's ctime, which nobody can set.
    """
    modes: list[tuple[bytes, int]] = []
    waiting = [(os.fsencode(source), os.fsencode(target))]
    while waiting:
        here, there = waiting.pop()
        status = os.lstat(here)
        if (status.st_dev, status.st_ino) in excluded:
            continue
        if again:
            open_up(here, status)
        if not stat.S_ISDIR(status.st_mode):
            _copy_leaf(here, there, status, again=again)
            continue
        _make_real_directory(there)
        modes.append((there, stat.S_IMODE(status.st_mode) & 0o777 | 0o500))
        names = [entry.name for entry in entries(here)]
        if again:
            _remove_others(there, frozenset(names))
        waiting += [(os.path.join(here, name), os.path.join(there, name)) for name in names]
    for there, mode in reversed(modes):
        os.chmod(there, mode)


def _make_real_directory(path: bytes) -> None:
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            os.chmod(path, 0o700)
            return
        os.unlink(path)
    except FileNotFoundError:  # the usual case: it is to be made
        pass
    os.mkdir(path, 0o700)


def _remove_others(directory: bytes, names: frozenset[bytes]) -> None:
    for entry in list(entries(directory)):
        if entry.name not in names:
            remove(Path(os.fsdecode(entry.path)))


def _copy_leaf(here: bytes, there: bytes, status: os.stat_result, *, again: bool) -> None:
    if stat.S_ISREG(status.st_mode) and again and _same_copy(there, status):
        return
    if again:
        remove(Path(os.fsdecode(there)))
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(here), there)
    elif stat.S_ISREG(status.st_mode):
        refuse_large(here, status)
        _copy_file(here, there)
        times = status.st_ctime_ns if again else status.st_mtime_ns
        os.utime(there, ns=(times, times))


def _same_copy(there: bytes, status: os.stat_result) -> bool:
    try:
        copy = os.lstat(there)
    except FileNotFoundError:  # not copied yet
        return False
    return (
        stat.S_ISREG(copy.st_mode)
        and copy.st_size == status.st_size
        and copy.st_mtime_ns == status.st_ctime_ns
    )


def _copy_file(here: bytes, there: bytes) -> None:
    # O_NONBLOCK: were it swapped for a FIFO, the open returns and the fstat below tells
    source = os.open(here, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(there, flags, 0o600)
        try:
            _copy_bytes(source, target)
            os.fchmod(target, stat.S_IMODE(status.st_mode) & 0o777 | 0o400)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_bytes(source: int, target: int) -> None:
    """copy_file_range(2) makes a reflink where the file system can."""
    try:
        while os.copy_file_range(source, target, 1 << 30):
            pass
    except OSError as problem:
        if problem.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        with (
            open(source, "rb", closefd=False) as reader,
            open(target, "wb", closefd=False) as writer,
        ):
            shutil.copyfileobj(reader, writer)


# ---- what git does not put back ---------------------------------------------------------------


def copy_opaque(path: bytes, source: Path, target: Path, *, again: bool = False) -> None:
    """Copy an opaque entry from one tree into another, under the same name."""
    name = os.fsdecode(path)
    (target / name).parent.mkdir(0o755, parents=True, exist_ok=True)
    copy_tree(source / name, target / name, again=again)


def make_directories(root: Path, directories: Collection[bytes]) -> None:
    """Make the directories that a tree does not have for want of files."""
    for path in sorted(directories):
        directory = os.path.join(os.fsencode(root), path)
        with suppress(FileExistsError):  # one above it, made with the files
            os.mkdir(directory)
        os.chmod(directory, DIRECTORY_MODE)


def change_modes(root: Path, modes: Mapping[bytes, int]) -> None:
    """Give the permissions that are not those of a checkout, the deepest first."""
    for path in sorted(modes, reverse=True):
        change_mode(os.path.join(os.fsencode(root), path), modes[path])


# ---- removing ---------------------------------------------------------------------------------


def remove_argv(path: Path) -> list[str]:
    """rm(1): it descends by descriptor, to any depth, and follows no link."""
    return [
        "rm",
        "--recursive",
        "--force",
        "--one-file-system",
        "--",
        str(path),
    ]


def open_up_argv(path: Path) -> list[str]:
    """chmod(1) of a real directory; links below it are not followed."""
    return [
        "chmod",
        "--recursive",
        "--silent",
        "u+rwX",
        "--",
        str(path),
    ]


def remove(path: Path) -> None:
    """Remove whatever is at `path`, read-only trees too. Nothing there is no error."""
    if not os.path.lexists(path):
        return
    if not is_directory(path):
        path.unlink()
        return
    if _quietly(remove_argv(path)).returncode == 0:
        return
    _quietly(open_up_argv(path))
    removed = _quietly(remove_argv(path))
    if removed.returncode:
        words = removed.stderr.decode(errors="replace").strip()
        raise TryAgain(f"{path}: can't be removed: {words}")


def _quietly(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=False
    )
