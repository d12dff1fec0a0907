"""Reads what a call used out of its answer as it passes: three protocols, in bounded memory. Pure.

An event of a stream is looked into when it is complete, and only where it speaks of usage at all;
one that is longer than a buffer is read as it comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agentorch.broker.json_fields import ANY, Fields, Path
from agentorch.broker.wire_formats import Wire

_BUFFER_BYTES = 64 * 1024
_DATA = b"data:"


@dataclass(frozen=True)
class Usage:
    """The figures of a call so far. `tokens_in` is all input: cached, written to a cache, and new.

    `cache_write` includes `cache_write_1h`, `tokens_out` includes `reasoning`.
    """

    model: str = ""
    tokens_in: int = 0
    cached: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    tokens_out: int = 0
    reasoning: int = 0


# Names of fields in a usage object, and what they count.
_MESSAGES: dict[Path, str] = {
    ("input_tokens",): "new",
    ("cache_read_input_tokens",): "cached",
    ("cache_creation_input_tokens",): "cache_write",
    ("cache_creation", "ephemeral_1h_input_tokens"): "cache_write_1h",
    ("output_tokens",): "tokens_out",
    ("output_tokens_details", "thinking_tokens"): "reasoning",
}
_RESPONSES: dict[Path, str] = {
    ("input_tokens",): "tokens_in",
    ("input_tokens_details", "cached_tokens"): "cached",
    ("input_tokens_details", "cache_write_tokens"): "cache_write",
    ("output_tokens",): "tokens_out",
    ("output_tokens_details", "reasoning_tokens"): "reasoning",
}
_CHAT: dict[Path, str] = {
    ("prompt_tokens",): "tokens_in",
    ("prompt_tokens_details", "cached_tokens"): "cached",
    ("prompt_tokens_details", "cache_write_tokens"): "cache_write",
    ("cached_tokens",): "cached",  # Moonshot
    ("prompt_cache_hit_tokens",): "cached",  # DeepSeek
    ("completion_tokens",): "tokens_out",
    ("completion_tokens_details", "reasoning_tokens"): "reasoning",
}


def _wanted_fields(
    model: Path, places: tuple[Path, ...], counts: Mapping[Path, str]
) -> dict[Path, str]:
    found = {(*place, "usage", *path): name for place in places for path, name in counts.items()}
    return {("model",): "model", model: "model", **found}


_WANTED: dict[Wire, dict[Path, str]] = {
    Wire.MESSAGES: _wanted_fields(("message", "model"), ((), ("message",)), _MESSAGES),
    Wire.RESPONSES: _wanted_fields(("response", "model"), ((), ("response",)), _RESPONSES),
    Wire.CHAT: _wanted_fields(("model",), ((), ("choices", ANY)), _CHAT),
}


class Meter:
    """Counts one answer. `events`: it is a stream of server-sent events, else one JSON object."""

    def __init__(self, wire: Wire, *, events: bool) -> None:
        self._names = _WANTED[wire]
        self._counts: dict[str, int] = {}
        self._model = ""
        self._events = _Events(self._names) if events else None
        self._fields = Fields(self._names)

    def feed(self, chunk: bytes) -> None:
        """Read on; `usage` has what the complete events until here said."""
        if self._events is None:
            self._fields.feed(chunk)
            self._take(self._fields)
            return
        for fields in self._events.feed(chunk):
            self._take(fields)

    def close(self) -> None:
        """Close the meter: the answer is over, and what came last counts without an end of its
        own.
        """
        if self._events is not None:
            for fields in self._events.feed(b"\n\n"):
                self._take(fields)

    @property
    def usage(self) -> Usage | None:
        """Return what was used as far as it was said; None while nothing was."""
        if not self._counts:
            return None
        counts = dict(self._counts)
        new = counts.pop("new", 0)
        total = new + counts.get("cached", 0) + counts.get("cache_write", 0)
        return Usage(**{"model": self._model, "tokens_in": total, **counts})  # type: ignore[arg-type]

    def _take(self, fields: Fields) -> None:
        # What a stream says again later is the whole until then: the largest counts.
        for path, text in fields.found.items():
            name = self._names[path]
            if name == "model":
                self._model = text
            elif text.isdecimal() and len(text) <= 15:
                self._counts[name] = max(self._counts.get(name, 0), int(text))


class _Events:
    """Cuts a stream into events (HTML Standard, section 9.2) and looks into those with usage."""

    def __init__(self, wanted: Mapping[Path, str]) -> None:
        self._wanted = wanted
        self._head = bytearray()  # of the line: as much as says what line it is
        self._kept = bytearray()  # of the event's data, while it is small
        self._fields: Fields | None = None

    def feed(self, chunk: bytes) -> list[Fields]:
        """Return what the events had that were completed by this."""
        found: list[Fields] = []
        place = 0
        while (end := chunk.find(b"\n", place)) >= 0:
            self._part(chunk[place:end])
            if not self._head.rstrip(b"\r"):
                found += self._complete_events()
            elif self._head == _DATA:
                self._data(b"\n")
            self._head.clear()
            place = end + 1
        self._part(chunk[place:])
        return found

    def _part(self, part: bytes) -> None:
        more = len(_DATA) - len(self._head)
        self._head += part[:more]
        if self._head == _DATA:
            self._data(part[more:])

    def _data(self, part: bytes) -> None:
        if self._fields is not None:
            self._fields.feed(part)
            return
        self._kept += part
        if len(self._kept) > _BUFFER_BYTES:
            self._fields = self._read()

    def _read(self) -> Fields:
        fields = Fields(self._wanted)
        fields.feed(bytes(self._kept))
        self._kept.clear()
        return fields

    def _complete_events(self) -> list[Fields]:
        fields, self._fields = self._fields, None
        if fields is None and b'"usage"' in self._kept:
            fields = self._read()
        self._kept.clear()
        return [] if fields is None else [fields]
