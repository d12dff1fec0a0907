"""The files and lines of a patch of `git diff`; bounded, with counts of what is left out.

The header of a hunk decides what its lines are, never what a line looks like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

MAX_BYTES = 64 * 1024 * 1024
MAX_LINES = 3000
MAX_FILE_LINES = 800
MAX_FILES = 300
MAX_CHARS = 500
OPEN_LINES = 800

_READ_BYTES = 4096
_HUNK = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_QUOTED = re.compile(rb'\\([0-7]{3}|["\\abfnrtv])')
_ESCAPES = dict(zip(b'"\\abfnrtv', b'"\\\a\b\f\n\r\t\v', strict=True))
_KINDS = (
    (b"new file", "new"),
    (b"deleted file", "deleted"),
    (b"rename to ", "renamed"),
    (b"copy to ", "copied"),
    (b"new mode ", "mode"),
)


@dataclass(frozen=True)
class Line:
    """A line of a file's change: `added`, `removed`, `same`, `hunk` or `note`."""

    kind: str
    text: str
    old: int | None = None
    new: int | None = None


@dataclass
class FileChange:
    """The change of one file; `left_out` counts the lines that are not in `lines`."""

    path: str
    kind: str = "changed"
    was: str = ""
    is_binary: bool = False
    added: int = 0
    removed: int = 0
    left_out: int = 0
    is_open: bool = True
    lines: list[Line] = field(default_factory=list)


@dataclass
class Patch:
    """A patch; `is_whole` says whether all of it was read."""

    files: list[FileChange] = field(default_factory=list)
    file_count: int = 0
    added: int = 0
    removed: int = 0
    line_count: int = 0
    shown: int = 0
    is_whole: bool = True

    @property
    def is_cut(self) -> bool:
        """True where a part of the patch is not shown."""
        return not self.is_whole or any(one.left_out for one in self.files) or self._more_files

    @property
    def _more_files(self) -> bool:
        return self.file_count > len(self.files)


def read(path: Path) -> Patch | None:
    """Return the patch at `path`, None where there is none."""
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return None
    reader = _Reader()
    with file:
        for line in _lines(file):
            reader.take(line)
        reader.patch.is_whole = not file.read(1)
    return reader.patch


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of the first MAX_BYTES, each cut to _READ_BYTES."""
    while file.tell() < MAX_BYTES and (line := file.readline(_READ_BYTES)):
        whole = line.endswith(b"\n")
        yield line.rstrip(b"\n")
        while not whole and (rest := file.readline(_READ_BYTES)) and file.tell() < MAX_BYTES:
            whole = rest.endswith(b"\n")


class _Reader:
    """A reader of a patch, line by line; `old` and `new` count the lines left in the hunk."""

    def __init__(self) -> None:
        self.patch = Patch()
        self.change = FileChange("")
        self.old = self.new = 0
        self.at_old = self.at_new = 0

    def take(self, line: bytes) -> None:
        self.patch.line_count += 1
        if self.old > 0 or self.new > 0:
            self._hunk_line(line)
        elif line.startswith(b"diff --git "):
            self._file(line)
        elif match := _HUNK.match(line):
            self._hunk(line, match)
        elif line.startswith(b"\\"):
            self._show(Line("note", _text(line)))
        else:
            self._header(line)

    def _file(self, line: bytes) -> None:
        self.patch.file_count += 1
        is_open = self.patch.shown < OPEN_LINES
        self.change = FileChange(_header_path(line), is_open=is_open)
        if len(self.patch.files) < MAX_FILES:
            self.patch.files.append(self.change)

    def _header(self, line: bytes) -> None:
        for begins, kind in _KINDS:
            if line.startswith(begins):
                self.change.kind = kind
        if line.startswith((b"rename from ", b"copy from ")):
            self.change.was = _path(line.split(b" from ", 1)[1])
        elif line.startswith((b"rename to ", b"copy to ")):
            self.change.path = _path(line.split(b" to ", 1)[1])
        elif line.startswith((b"Binary files ", b"GIT binary patch")):
            self.change.is_binary = True
        elif line.startswith((b"+++ ", b"--- ")) and not line.endswith(b"/dev/null"):
            self.change.path = _path(line[4:].rstrip(b"\t"))[2:]

    def _hunk(self, line: bytes, match: re.Match[bytes]) -> None:
        self.old, self.new = int(match[2] or 1), int(match[4] or 1)
        self.at_old, self.at_new = int(match[1]), int(match[3])
        self._show(Line("hunk", _text(line)))

    def _hunk_line(self, line: bytes) -> None:
        mark, text = line[:1], _text(line[1:])
        if mark == b"+":
            self._show(Line("added", text, new=self.at_new))
            self.change.added += 1
            self.patch.added += 1
        elif mark == b"-":
            self._show(Line("removed", text, old=self.at_old))
            self.change.removed += 1
            self.patch.removed += 1
        elif mark == b"\\":
            self._show(Line("note", _text(line)))
            return
        else:
            self._show(Line("same", text, self.at_old, self.at_new))
        if mark != b"+":
            self.old, self.at_old = self.old - 1, self.at_old + 1
        if mark != b"-":
            self.new, self.at_new = self.new - 1, self.at_new + 1

    def _show(self, line: Line) -> None:
        if self.patch.shown >= MAX_LINES or len(self.change.lines) >= MAX_FILE_LINES:
            self.change.left_out += 1
            return
        self.change.lines.append(line)
        self.patch.shown += 1


def _text(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}…"


def _header_path(line: bytes) -> str:
    """Return the path of a `diff --git` line, assuming that both its halves are equal."""
    names = line[len(b"diff --git ") :]
    middle = len(names) // 2
    return _path(names[middle + 1 :])[2:]


def _path(name: bytes) -> str:
    """Return a path without the quotes and escapes that git adds to unusual characters."""
    if name.startswith(b'"'):
        name = _QUOTED.sub(_unescape, name.strip(b'"'))
    return _text(name)


def _unescape(match: re.Match[bytes]) -> bytes:
    word = match[1]
    return bytes([int(word, 8) & 0xFF if len(word) == 3 else _ESCAPES[word[0]]])
