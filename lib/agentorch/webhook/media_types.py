"""The content types of artifacts. Pure.

Only types that a browser shows as text and never runs are sent for display. Every other file is
sent as an attachment, for the browser to save.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

DISPLAYED = {
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".md": "text/markdown; charset=utf-8",
    ".diff": "text/x-diff; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
SAVED = "application/octet-stream"


def media_type(path: str) -> tuple[str, Mapping[str, str]]:
    """Return the content type of a file, and the headers that go with it."""
    displayed = DISPLAYED.get(PurePosixPath(path).suffix)
    return (displayed, {}) if displayed else (SAVED, {"Content-Disposition": "attachment"})
