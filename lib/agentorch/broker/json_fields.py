"""Single values out of a JSON text that comes in pieces and may be of any size. Pure.

What is not wanted is passed over as it comes, so a text of 50 MB costs no more memory than one of
50 bytes. It is no validator: of a text that is not JSON it finds something or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection

Path = tuple[str, ...]

ANY = "*"  # stands in a path for an array's elements

_MOST_CHARS = 200
# No wanted path is deeper; below it only the brackets are counted.
_DEPTH = 8
_BARE = re.compile(rb'[^\s:{}\[\],"]*+')
_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class Fields:
    """Collects in `found` the wanted scalars: strings without quotes, others as they stand."""

    def __init__(self, wanted: Collection[Path]) -> None:
        self.found: dict[Path, str] = {}
        self._wanted = wanted
        self._frames: list[str | None] = []  # the key that an object is at; ANY in an array
        self._deeper = 0
        self._bare = bytearray()
        self._string: bytearray | None = None
        self._escaped = False
        self._is_key = False

    def feed(self, chunk: bytes) -> None:
        """Read on."""
        place = 0
        while place < len(chunk):
            place = self._next(chunk, place)

    def _next(self, chunk: bytes, place: int) -> int:
        if self._string is not None:
            return self._read_string(chunk, place, self._string)
        end = _past(_BARE, chunk, place)
        if end > place:
            self._keep(self._bare, chunk, place, end)
            return end
        self._mark(chunk[place : place + 1])
        return place + 1

    def _read_string(self, chunk: bytes, place: int, string: bytearray) -> int:
        if self._escaped:
            self._escaped = False
            self._keep(string, chunk, place, place + 1)
            place += 1
        end = _past(_STRING, chunk, place)
        self._keep(string, chunk, place, end)
        if end == len(chunk):
            return end
        if chunk[end : end + 1] == b"\\":  # the last byte: what it escapes comes with the next
            self._escaped = True
            self._keep(string, chunk, end, end + 1)
            return end + 1
        self._string = None
        self._end_string(string)
        return end + 1

    def _end_string(self, string: bytearray) -> None:
        text = string.decode("utf-8", "replace")
        if self._is_key and self._frames and not self._deeper:
            self._frames[-1] = text
            self._is_key = False
        else:
            self._value(text)

    def _mark(self, mark: bytes) -> None:
        if self._bare:
            self._value(self._bare.decode("ascii", "replace"))
            self._bare.clear()
        match mark:
            case b'"':
                self._string = bytearray()
            case b"{" | b"[":
                self._open(mark)
            case b"}" | b"]":
                self._close()
            case b",":
                self._is_key = bool(self._frames) and self._frames[-1] is not ANY

    def _open(self, mark: bytes) -> None:
        if len(self._frames) >= _DEPTH:
            self._deeper += 1
            return
        self._frames.append("" if mark == b"{" else ANY)
        self._is_key = mark == b"{"

    def _close(self) -> None:
        if self._deeper:
            self._deeper -= 1
        elif self._frames:
            self._frames.pop()
        self._is_key = False

    def _value(self, text: str) -> None:
        if not self._deeper:
            path = tuple(frame or "" for frame in self._frames)
            if path in self._wanted:
                self.found[path] = text

    @staticmethod
    def _keep(kept: bytearray, chunk: bytes, place: int, end: int) -> None:
        kept += chunk[place : min(end, place + _MOST_CHARS - len(kept))]


def _past(pattern: re.Pattern[bytes], chunk: bytes, place: int) -> int:
    match = pattern.match(chunk, place)
    return match.end() if match else place
