"""Files below a directory that an agent may have written to: no symlink is ever followed.

Every component is opened by itself below the descriptor of the one before it, so it does not
matter what is swapped meanwhile; only regular files are read, without waiting for a FIFO.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotBeneath(Exception):
    """The path leaves its root, goes through a symlink, is closed to us, or no regular file."""


def read(root: Path, path: str, limit_bytes: int) -> bytes | None:
    """At most so many bytes of a regular file; None where nothing is. Raises NotBeneath."""
    file = open_file(root, path)
    if file is None:
        return None
    with file:
        return file.read(limit_bytes)


def open_file(root: Path, path: str) -> BinaryIO | None:
    """Return a regular file, open for reading; None where nothing is. Raises NotBeneath."""
    try:
        with _parent(root, path, make=False) as (directory, name):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise _refusal(problem, path) from problem
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotBeneath(path)
    return os.fdopen(descriptor, "rb")


def write(root: Path, path: str, content: bytes, mode: int = 0o640) -> None:
    """Put a file there, directories included; what was there is replaced. Raises NotBeneath.

    For files that nobody reads yet: neither atomic nor durable.
    """
    try:
        with _parent(root, path, make=True) as (directory, name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(name, flags, mode, dir_fd=directory), "wb") as file:
                file.write(content)
    except OSError as problem:
        raise _refusal(problem, path) from problem


def remove(root: Path, path: str) -> None:
    """Remove a file below a directory; no harm where it, or the way to it, is not there.

    A link at the path is itself removed. Raises NotBeneath where the way leads elsewhere.
    """
    with (
        contextlib.suppress(FileNotFoundError),
        _parent(root, path, make=False) as (parent, name),
    ):
        os.unlink(name, dir_fd=parent)


@contextlib.contextmanager
def _parent(root: Path, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
    *directories, name = path.split("/")
    if path.startswith("/") or "" in (*directories, name) or ".." in (*directories, name):
        raise NotBeneath(path)
    with contextlib.ExitStack() as opened:
        descriptor = _open_directory(opened, os.fspath(root), None)
        for directory in directories:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(directory, 0o750, dir_fd=descriptor)
            descriptor = _open_directory(opened, directory, descriptor)
        yield descriptor, name


def _open_directory(opened: contextlib.ExitStack, name: str, directory: int | None) -> int:
    descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
    opened.callback(os.close, descriptor)
    return descriptor


def _refusal(problem: OSError, path: str) -> Exception:
    odd = (
        *(errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR, errno.ENAMETOOLONG, errno.EMLINK),
        # whoever wrote below the root closed a directory there to us
        *(errno.EACCES, errno.EPERM),
    )
    return NotBeneath(path) if problem.errno in odd else problem
