"""Files of ours as they are read again: whole, or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Document = dict[str, Any]


def read_json(path: Path) -> Document | None:
    """A document that we wrote, None where there is none."""
    try:
        document: Document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return document


def read_cache(path: Path) -> Document:
    """What we kept to spare us work; empty where it can't be read or is not as we write it."""
    try:
        known = read_json(path)
    except (OSError, ValueError):  # as good as none
        return {}
    return known if isinstance(known, dict) else {}


def read_bytes(path: Path) -> bytes:
    """A file of ours, empty where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def read_text(path: Path) -> str:
    """A text of ours, empty where there is none."""
    return read_bytes(path).decode("utf-8", "replace")
