"""Server-sent events as they come in pieces (HTML Living Standard, section 9.2). Pure.

Only `data` counts: the providers repeat an event's name in it, or have none.
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_EVENT_BYTES = 16 << 20


class TooLong(Exception):
    """An event that no provider sends."""


class Events:
    """Bytes in, the data of whole events out."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the data of the events that this chunk completes. Raises TooLong."""
        # What was there before has no newline in it, and is not looked at again.
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            line = bytes(self._rest + piece)
            self._rest.clear()
            yield from self._line(line.removesuffix(b"\r"))
        self._rest += rest
        if self._size + len(self._rest) > MAX_EVENT_BYTES:
            raise TooLong(f"an event of more than {MAX_EVENT_BYTES} bytes")

    def _line(self, line: bytes) -> Iterator[bytes]:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._size += len(line)
        elif not line and self._data:
            yield b"\n".join(self._data)
            self._data.clear()
            self._size = 0
