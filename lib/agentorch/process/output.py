"""The output of an agent: followed while it grows, read when it is whole, shortened for people.

The output is in regular files, so it is never lost on a slow reader. Memory stays flat whatever
they hold: a line is kept up to a limit, the rest of it is skipped.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from agentorch.core.process_end import Line

FOLLOWED_LINE_BYTES = 1 << 20
WHOLE_LINE_BYTES = 4 << 20
CHUNK_BYTES = 256 << 10
MANY_LINES = 500_000
LAST_BYTES = 4 << 20
# Longer than any secret that could be cut in two.
MARGIN_CHARS = 512
# What is followed after the end of a program that printed faster than it could be followed.
DRAINED_BYTES = 4 << 20


class Splitter:
    """Bytes in, lines out; holds at most one line of `limit` bytes and one chunk."""

    def __init__(self, stream: str, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._kept = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Yield the lines that this chunk completes, and those that it makes too long."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            # The usual case by far; a flood has millions of lines.
            if not self._kept and not self._skipping and len(piece) <= self._limit:
                yield Line(self._stream, piece.decode("utf-8", "replace"))
                continue
            yield from self._keep(piece)
            yield from self._end()
        yield from self._keep(rest)

    def rest(self) -> Iterator[Line]:
        """Yield what stands behind the last newline, if anything does."""
        if self._kept:
            yield from self._end()

    def skip(self) -> None:
        """Forgets what was kept and everything up to the next newline."""
        self._kept.clear()
        self._skipping = True

    def _end(self) -> Iterator[Line]:
        if not self._skipping:
            yield Line(self._stream, self._kept.decode("utf-8", "replace"))
        self._kept.clear()
        self._skipping = False

    def _keep(self, piece: bytes) -> Iterator[Line]:
        if self._skipping:
            return
        self._kept += piece
        if len(self._kept) > self._limit:
            yield Line(self._stream, _decoded_head(bytes(self._kept[: self._limit])), cut=True)
            self.skip()


def _decoded_head(content: bytes) -> str:
    """Return decoded without the character that the cut may have split."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(content)


class Follower:
    """The reader of a file that another process appends to, a chunk at a time."""

    def __init__(self, path: Path, stream: str) -> None:
        self._file = _open(path)
        self._stream = stream
        self._splitter = Splitter(stream, FOLLOWED_LINE_BYTES)
        self._place = 0

    def close(self) -> None:
        self._file.close()

    @property
    def size(self) -> int:
        """The file's length in bytes."""
        return os.fstat(self._file.fileno()).st_size

    @property
    def behind(self) -> bool:
        """Return whether there is something to read."""
        return self.size != self._place

    def read(self) -> Iterator[Line]:
        """Yield the lines in the next chunk; none when there is nothing new. Never waits."""
        # `echo text >/dev/stderr` opens the file anew and truncates it.
        if self.size < self._place:
            self._splitter = Splitter(self._stream, FOLLOWED_LINE_BYTES)
            self._place = 0
        chunk = os.pread(self._file.fileno(), CHUNK_BYTES, self._place)
        self._place += len(chunk)
        yield from self._splitter.feed(chunk)

    def drain(self) -> Iterator[Line]:
        """Yield the rest, at the end: what is further behind than DRAINED_BYTES is counted, not
        read.
        """
        size = self.size
        if size - self._place > DRAINED_BYTES:
            left_out = size - DRAINED_BYTES - self._place
            yield Line(self._stream, f"[… {left_out} bytes not followed …]", cut=True)
            self._place += left_out
            self._splitter.skip()
        while self.behind and self._place < size:
            yield from self.read()
        yield from self._splitter.rest()


class Followers:
    """Both streams of a program."""

    def __init__(self, stdout: Path, stderr: Path) -> None:
        self._both = (Follower(stdout, "stdout"), Follower(stderr, "stderr"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._both:
            one.close()

    @property
    def behind(self) -> bool:
        """Return whether there is something to read."""
        return any(one.behind for one in self._both)

    def sizes(self) -> tuple[int, ...]:
        """Return the lengths of both files."""
        return tuple(one.size for one in self._both)

    def follow(self, on_line: Callable[[Line], None]) -> None:
        """Read a chunk of each, so that neither keeps the other or the limits waiting."""
        for one in self._both:
            for line in one.read():
                on_line(line)

    def drain(self, on_line: Callable[[Line], None]) -> None:
        """Read the rest of both, when nobody writes any more."""
        for one in self._both:
            for line in one.drain():
                on_line(line)


def lines(path: Path, stream: str) -> Iterator[Line]:
    """Yield the lines of a finished file, read as they are asked for.

    Of a flood of short ones the middle is left out: half a million lines, then the last 4 MiB.
    """
    splitter = Splitter(stream, WHOLE_LINE_BYTES)
    count = 0
    with _open(path) as file:
        last = os.fstat(file.fileno()).st_size - LAST_BYTES
        while chunk := file.read(CHUNK_BYTES):
            for line in splitter.feed(chunk):
                count += 1
                yield line
            if count > MANY_LINES and file.tell() < last:
                splitter.skip()
                file.seek(last)
    yield from splitter.rest()


@dataclass(frozen=True)
class Kept:
    """The kept part of a text: all in `head` where nothing is missing, else both ends of it.

    They end and begin with whole lines, or well away from where a word could have been cut.
    """

    head: str
    missing: int = 0
    tail: str = ""


def trim_ends(head: str, total: int, tail: str) -> Kept:
    """Return the ends of a text of `total` characters, trimmed where they were cut. Pure."""
    before, line, _ = head.rpartition("\n")
    head = before + line if line else head[:-MARGIN_CHARS]
    _, line, behind = tail.partition("\n")
    tail = behind if line else tail[MARGIN_CHARS:]
    return Kept(head, total - len(head) - len(tail), tail)


def head_and_tail(path: Path, max_chars: int) -> Kept:
    """Return the file as text; of a longer one the first and last halves."""
    head, tail, total = "", "", 0
    half = max_chars // 2
    for text in _decode(path):
        total += len(text)
        head += text[: max_chars - len(head)]
        tail = (tail + text)[-half:] if half else ""
    return Kept(head) if total <= max_chars else trim_ends(head[:half], total, tail)


def _decode(path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with _open(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


def _open(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    return os.fdopen(descriptor, "rb", buffering=0)
