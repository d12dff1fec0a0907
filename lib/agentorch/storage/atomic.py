"""Files that never appear half-written, and names that outlive a power cut.

Order of every write: the new bytes are fsynced before the name points at them, the directory is
fsynced after. An fsync error is final: it is raised and never tried again on that descriptor.
Every OSError of a full, read-only or failing disk becomes TryAgain with the path in it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from agentorch.core.errors import TryAgain

DISK_TROUBLE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
)

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}")


@contextlib.contextmanager
def disk_trouble(path: Path) -> Iterator[None]:
    """Turn an OSError that says the disk can't take it now into TryAgain naming `path`."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in DISK_TROUBLE:
            raise
        raise TryAgain(f"{problem.filename or path}: {os.strerror(problem.errno)}") from problem


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Opened anew: a kept descriptor can go stale."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path, mode: int = 0o750) -> None:
    """Make a directory and the missing ones above it, each durable in its parent."""
    if path.is_dir():
        return
    make_directory(path.parent, mode)
    with contextlib.suppress(FileExistsError):  # somebody else made it: the same to us
        path.mkdir(mode)
    sync_directory(path.parent)


def replace(path: Path, content: bytes, *, mode: int = 0o640, last: bool = True) -> None:
    """Put `content` at `path` in one rename; durable when it returns.

    Of several files in a directory only the `last` one's name has to be synced: all are, then.
    """
    # The content is on the disk before it gets the name, so whoever reads the name after a power
    # cut reads all of the old content or all of the new. Killed before the rename, a temporary
    # stays, which `remove_temporaries` takes away when nobody writes there.
    temporary = _temporary(path)
    try:
        _create(temporary, content, mode)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # Without this a power cut may bring the old content back: nothing is answered before it.
    if last:
        sync_directory(path.parent)


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o640) -> Iterator[BinaryIO]:
    """Return a file that gets its name, in one rename, when all was written; durable on the way
    out.
    """
    temporary = _temporary(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def replace_json(path: Path, document: Any) -> None:
    """`replace` with a JSON document, indented for people."""
    replace(path, encode(document))


def encode(document: Any) -> bytes:
    """Return a JSON document as the bytes that go to disk."""
    return json.dumps(document, ensure_ascii=False, indent=2).encode() + b"\n"


def encode_line(document: Any) -> bytes:
    """Return the same in one line: less than half the time, for what every submission writes."""
    return json.dumps(document, ensure_ascii=False).encode() + b"\n"


def link(source: Path, target: Path) -> None:
    """Make `target` a second name of `source` in one rename, replacing what was there.

    Not durable until the directory is synced.
    """
    temporary = _temporary(target)
    os.link(source, temporary)
    os.rename(temporary, target)
    # rename(2) of two names of one inode does nothing and leaves both
    temporary.unlink(missing_ok=True)


def remove_temporaries(directory: Path) -> None:
    """Remove what a killed `replace` or `link` left in a directory that nobody writes to now."""
    for path in directory.glob(".*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def append_line(path: Path, line: bytes) -> None:
    """Append a line and make it and its name durable. A torn last line is closed first."""
    descriptor = os.open(
        path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640
    )
    try:
        # A crash may leave half a line at the end. It is closed by a newline, so that it spoils no
        # other line, and readers leave out what is no JSON.
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        _write_all(descriptor, (b"\n" if torn else b"") + line + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def _temporary(path: Path) -> Path:
    if not path.name:  # the root directory
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return path.with_name(f".{path.name}.{os.urandom(6).hex()}")


def _create(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        write_synced(descriptor, content)
    finally:
        os.close(descriptor)


def write_synced(descriptor: int, content: bytes) -> None:
    """Write all of `content` and make it durable."""
    _write_all(descriptor, content)
    os.fsync(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
