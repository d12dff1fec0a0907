"""A tar as a stream: written so that the same content gives the same bytes, read without trust.

Written are POSIX headers (pax(1)) with an extended header only where a name or a size needs one.
Owners, groups and times are left out. Read is what is written here, and nothing else of what a
tar can hold: no header may be larger than a page of names, none may say where its entry ends
twice, and the two blocks of zeros at the end must be there.

https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from agentorch.core.errors import Invalid

BLOCK_BYTES = 512
CHUNK_BYTES = 1 << 20
MAX_HEADER_BYTES = 64 * 1024
END = bytes(2 * BLOCK_BYTES)
_KEYWORDS = frozenset({"path", "linkpath", "size", "hdrcharset"})


class Kind(StrEnum):
    """The kind of an entry."""

    FILE = "file"
    LINK = "link"
    SYMLINK = "symlink"
    DIRECTORY = "directory"


_TYPES = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.LINK: tarfile.LNKTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
}
_KINDS = {kind: name for name, kind in _TYPES.items()}


class Readable(Protocol):
    """A source of bytes for a tar: a pipe will do."""

    def read(self, size: int, /) -> bytes:
        """So many bytes; fewer at the end, or where a pipe has no more just now."""


@dataclass(frozen=True)
class Header:
    """An entry's: `target` of a link is the name of an entry before it, of a symlink its text."""

    path: str
    kind: Kind
    mode: int
    size: int = 0
    target: str = ""


# ---- writing ----------------------------------------------------------------------------------


def header_bytes(header: Header) -> bytes:
    """Return the blocks before an entry's content. Pure."""
    info = tarfile.TarInfo(header.path)
    info.type, info.mode = _TYPES[header.kind], header.mode
    info.size, info.linkname = header.size, header.target
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """Return what fills the last block of so much content. Pure."""
    return bytes(-size % BLOCK_BYTES)


# ---- reading ----------------------------------------------------------------------------------


class TarReader:
    """A tar that is read once, from its beginning. Raises Invalid where it is none of ours."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._left = 0
        self._padding = 0

    def next(self) -> Header | None:
        """Return the next entry; None at the end.

        What was not read of the one before is passed over.
        """
        for _ in self.content():
            pass
        block = self._exactly(BLOCK_BYTES)
        if not any(block):
            if any(self._exactly(BLOCK_BYTES)):
                raise Invalid(["it has a block of zeros in the middle"])
            return None
        info, extended = _parse(block), {}
        if info.type == tarfile.XHDTYPE:
            extended = self._read_extended(info.size)
            info = _parse(self._exactly(BLOCK_BYTES))
        header = _header(info, extended)
        self._left, self._padding = header.size, len(padding(header.size))
        return header

    def content(self) -> Iterator[bytes]:
        """Yield the content of the entry, piece by piece."""
        while self._left:
            piece = self._file.read(min(self._left, CHUNK_BYTES))
            if not piece:
                raise Invalid(["it ends before its end"])
            self._left -= len(piece)
            yield piece
        self._exactly(self._padding)
        self._padding = 0

    def whole(self, limit_bytes: int) -> bytes:
        """Return the content of the entry at once."""
        if self._left > limit_bytes:
            raise Invalid([f"an entry is larger than {limit_bytes} bytes"])
        return b"".join(self.content())

    def _read_extended(self, size: int) -> dict[str, str]:
        if not 0 < size <= MAX_HEADER_BYTES:
            raise Invalid(["an extended header is too large"])
        content = self._exactly(size)
        self._exactly(len(padding(size)))
        return dict(_records(content))

    def _exactly(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self._file.read(size)
            if not piece:
                raise Invalid(["it ends before its end"])
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def _parse(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as problem:
        raise Invalid([f"it is no tar, or a damaged one: {problem}"]) from problem


def _records(content: bytes) -> Iterator[tuple[str, str]]:
    """`LENGTH KEYWORD=VALUE\\n`, as often as there is room. Pure."""
    while content:
        length, _, rest = content.partition(b" ")
        size = int(length) if length.isdigit() and len(length) <= len(str(MAX_HEADER_BYTES)) else 0
        record, content = rest[: max(0, size - len(length) - 1)], content[size:]
        keyword, is_one, value = record.partition(b"=")
        if not (is_one and value.endswith(b"\n")):
            raise Invalid(["an extended header is damaged"])
        yield keyword.decode("ascii", "replace"), value[:-1].decode("utf-8", "surrogateescape")


def _header(info: tarfile.TarInfo, extended: dict[str, str]) -> Header:
    unknown = extended.keys() - _KEYWORDS
    if unknown or info.type not in _KINDS:
        what = ", ".join(sorted(unknown)) or f"an entry of type {info.type!r}"
        raise Invalid([f"{info.name!r}: it holds {what}: agentorch-export wrote no such thing"])
    kind = _KINDS[info.type]
    size = _size(extended["size"]) if "size" in extended else info.size
    if size < 0 or (size and kind is not Kind.FILE):
        raise Invalid([f"{info.name!r}: it has a size that can't be"])
    path = extended.get("path", info.name)
    target = extended.get("linkpath", info.linkname)
    if kind is Kind.DIRECTORY:
        path = path.removesuffix("/")
    return Header(path, kind, info.mode, size, target)


def _size(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
