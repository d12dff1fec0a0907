"""The request as a value, made from its WSGI environment (PEP 3333)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import parse_qs

from agentorch.core.text import printable

MAX_FIELDS = 20


@dataclass(frozen=True)
class Request:
    """A request. `path` is None where it is not UTF-8; names of headers are in lower case."""

    method: str
    path: str | None
    query: str
    headers: Mapping[str, str]
    peer: str
    body: BinaryIO

    @property
    def shown_path(self) -> str:
        """The path for the log: on one line, and short, without the query."""
        return printable(self.path or "?").replace("\n", "?")[:200]

    def field(self, name: str) -> str | None:
        """Return the last value of a field of the query; None where it is missing.

        Raises ValueError where there are too many fields.
        """
        values = parse_qs(self.query, keep_blank_values=True, max_num_fields=MAX_FIELDS)
        return values[name][-1] if name in values else None


def parse_environment(environment: Mapping[str, Any]) -> Request:
    """Return the request of a WSGI environment."""
    return Request(
        method=environment["REQUEST_METHOD"],
        path=_decode_path(environment["PATH_INFO"]),
        query=environment.get("QUERY_STRING", ""),
        headers={
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environment.items()
            if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
        },
        peer=environment.get("REMOTE_ADDR", ""),
        body=environment["wsgi.input"],
    )


def _decode_path(path: str) -> str | None:
    try:
        return path.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return None
