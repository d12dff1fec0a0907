"""Keeps a key out of what goes to an agent, whatever a provider repeats of a request. Pure."""

from __future__ import annotations


class Mask:
    """A mask for a key: as many asterisks where it is, also where it comes in two pieces.

    Bytes are held back only while they may be the beginning of the key.
    """

    def __init__(self, key: str) -> None:
        self._key = key.encode("utf-8", "surrogateescape")
        self._stars = b"*" * len(self._key)
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what may go out now."""
        if not self._key:
            return chunk
        seen = (self._held + chunk).replace(self._key, self._stars)
        begun = self._prefix_start(seen)
        self._held = seen[begun:]
        return seen[:begun]

    def close(self) -> bytes:
        """Return what was held back: it was no key."""
        held, self._held = self._held, b""
        return held

    def text(self, text: str) -> str:
        """Return a header's value without the key."""
        return (
            text.replace(self._key.decode("utf-8", "surrogateescape"), "*") if self._key else text
        )

    def _prefix_start(self, seen: bytes) -> int:
        place = seen.find(self._key[:1], max(0, len(seen) - len(self._key) + 1))
        while place >= 0 and not self._key.startswith(seen[place:]):
            place = seen.find(self._key[:1], place + 1)
        return len(seen) if place < 0 else place
