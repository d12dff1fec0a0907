"""An SQLite file that several processes write and anybody who may read it reads.

Writing: one connection a process, kept to its end; WAL, so that readers and the writer don't wait
for each other; synchronous=FULL, because what a transaction says is older than what other files
say that are synced after it, a power cut or not.

Reading: makes nothing, and needs no more than to read. While the file is open for writing (or its
writer was killed) there is a log beside it, with an index; then SQLite can read with them. Without
a log it would make both, or fail where it may not (sqlite.org/wal.html, "Read-Only Databases"), so
it is told that the file is immutable, and afterwards it is seen whether that held.
"""

from __future__ import annotations

import atexit
import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from agentorch.core.errors import Misconfigured, TryAgain
from agentorch.storage import atomic

T = TypeVar("T")
Prepare = Callable[[sqlite3.Connection], None]

# What another's transaction takes, with room for a slow disk.
BUSY_S = 5.0
LOOKS = 5  # of a reader, when it is written meanwhile
ADVICE = "move it away, with what lies beside it: a new one is made"
# A full, failing or read-only disk, or somebody who holds it too long (sqlite.org/rescode.html).
TROUBLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


@contextmanager
def sorted_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as ours: TryAgain for what passes, Misconfigured for a file that is broken.

    A broken file may show in any way: as a table that is missing, or as a text that is none.
    """
    try:
        yield
    except sqlite3.Error as problem:
        # the lower byte is the kind, the others say more (sqlite.org/rescode.html)
        if getattr(problem, "sqlite_errorcode", 0) & 0xFF in TROUBLE:
            raise TryAgain(f"{path}: {problem}") from problem
        raise Misconfigured(f"{path}: {problem}: {ADVICE}") from problem
    except (ValueError, TypeError) as problem:
        raise Misconfigured(f"{path}: {problem}: {ADVICE}") from problem


def _connection(path: Path, how: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?{how}"
    # one at a time uses it, whichever thread that is
    return sqlite3.connect(
        uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
    )


# ---- writing ----------------------------------------------------------------------------------


@contextmanager
def transaction(path: Path, prepare: Prepare) -> Iterator[sqlite3.Connection]:
    """One transaction, durable on return; none of it on any exception. Threads wait for each other.

    The file is made where there is none; `prepare` gets it when it was opened. Raises TryAgain
    where the disk can't take it now, Misconfigured where the file is broken.
    """
    with sorted_errors(path), _ONE_AT_A_TIME:
        try:
            db = KEPT.open(path, prepare)
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except BaseException:
            KEPT.close()  # takes back what was begun
            raise


class _Kept:
    """The connection of this process.

    The last one that is closed copies the log into the file and removes it, which takes ten times
    as long as a transaction: so it is kept. A child that is forked never comes here.
    """

    def __init__(self) -> None:
        self._db: sqlite3.Connection | None = None
        self._of: tuple[int, int, int] | None = None

    def open(self, path: Path, prepare: Prepare) -> sqlite3.Connection:
        """Return the connection to the file at `path`, which may be another one by now."""
        _make(path)
        found = path.stat()
        of = (os.getpid(), found.st_dev, found.st_ino)
        if self._db is None or self._of != of:
            self.close()
            self._db, self._of = _open(path, prepare), of
        return self._db

    def close(self) -> None:
        """Close it, and give up what was not committed."""
        db, self._db = self._db, None
        if db is not None:
            db.close()


KEPT = _Kept()
_ONE_AT_A_TIME = threading.Lock()  # of this process: the connection is that of all its threads
atexit.register(KEPT.close)


def _make(path: Path) -> None:
    """Make an empty file, whose mode SQLite gives to those beside it as well."""
    if path.exists():
        return
    with atomic.disk_trouble(path):
        atomic.make_directory(path.parent)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640))
        atomic.sync_directory(path.parent)


def _open(path: Path, prepare: Prepare) -> sqlite3.Connection:
    db = _connection(path, "mode=rw")
    try:
        _write_ahead(db, path)
        db.execute("PRAGMA synchronous = FULL")
        prepare(db)
    except BaseException:
        db.close()
        raise
    return db


def _write_ahead(db: sqlite3.Connection, path: Path) -> None:
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":  # that is no error to SQLite
        raise TryAgain(f"{path}: its disk can't take a write-ahead log")


# ---- reading ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """The file from outside; `has_log` while somebody has it open to write, or died with it."""

    inode: int
    changed_ns: int
    size: int
    has_log: bool


def look(path: Path, act: Callable[[sqlite3.Connection], T]) -> T | None:
    """Return what `act` finds in the file; None where there is none. Nothing is made.

    Raises Misconfigured where it is broken or may not be read, TryAgain where it is busy.
    """
    for _ in range(LOOKS):
        before = _look(path)
        if before is None:
            return None
        try:
            found = _look_once(path, act, before)
        except (Misconfigured, TryAgain):
            if _look(path) == before:
                raise
        else:
            if before.has_log or _look(path) == before:
                return found
    raise TryAgain(f"{path}: it is opened and closed all the time")


def _look(path: Path) -> _Seen | None:
    """Return what is there; None where there is no file, or an empty one."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    has_log = path.with_name(f"{path.name}-wal").exists()
    if not found.st_size and not has_log:
        return None
    return _Seen(found.st_ino, found.st_mtime_ns, found.st_size, has_log)


def _look_once(path: Path, act: Callable[[sqlite3.Connection], T], seen: _Seen) -> T:
    if not os.access(path, os.R_OK):
        raise Misconfigured(f"{path}: {os.strerror(errno.EACCES)}")
    how = "mode=ro" if seen.has_log else "immutable=1"
    with sorted_errors(path), closing(_connection(path, how)) as db:
        return act(db)
