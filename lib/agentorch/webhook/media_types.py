"""What an artifact is sent as. Pure.

Only what a browser shows as text and never runs is sent to be shown; all else is to be saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

SHOWN = {
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".md": "text/markdown; charset=utf-8",
    ".diff": "text/x-diff; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
SAVED = "application/octet-stream"


def type_of(path: str) -> tuple[str, Mapping[str, str]]:
    """The content type of a file, and the headers that go with it."""
    shown = SHOWN.get(PurePosixPath(path).suffix)
    return (shown, {}) if shown else (SAVED, {"Content-Disposition": "attachment"})
