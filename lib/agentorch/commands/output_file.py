"""The destination of the answer of a command with `-o FILE`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from agentorch.core.errors import Refused
from agentorch.storage import atomic


@contextmanager
def output_file(name: str) -> Iterator[BinaryIO]:
    """Return a file that has its name when it is whole; what is there and is no file is written to.

    A device or a FIFO is not replaced: root's rename would take /dev/null from everybody. A
    symbolic link stays one. Raises Refused where the file can't be made.
    """
    path = Path(name)
    try:
        if _is_special(path):
            with path.open("wb") as stream:
                yield stream
            return
        path = Path(os.path.realpath(path))
        with atomic.replacing(path) as file:
            yield file
    except (PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError) as problem:
        if problem.filename is None or not _is_of(Path(os.fsdecode(problem.filename)), path):
            raise
        raise Refused(f"{name}: {problem.strerror}") from problem


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _is_of(named: Path, path: Path) -> bool:
    """Return whether a problem is one of this file, or of the one that is to get its name."""
    return named.parent == path.parent
