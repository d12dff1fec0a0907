"""Files of ours as they are read again: whole, or not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from agentorch.core.errors import Damaged
from agentorch.core.text import one_line

Document = dict[str, Any]
T = TypeVar("T")


def read_document(path: Path) -> Document:
    """Return a document that we wrote. Raises Damaged, and FileNotFoundError where there is
    none.
    """
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError, IsADirectoryError) as problem:
        raise Damaged(f"{path}: damaged: {one_line(str(problem))}") from problem
    if not isinstance(document, dict):
        raise Damaged(f"{path}: damaged: it is no JSON object")
    return document


def read_json(path: Path) -> Document | None:
    """Return a document that we wrote, None where there is none. Raises Damaged."""
    try:
        return read_document(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def make_from(path: Path, document: Document, make: Callable[[Document], T]) -> T:
    """Return what `make` makes of a document of this file. Raises Damaged where it can't."""
    try:
        return make(document)
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        what = f"{type(problem).__name__}: {problem}"
        raise Damaged(f"{path}: damaged, or of another version: {one_line(what)}") from problem


def read_cache(path: Path) -> Document:
    """Return what we kept to spare us work; empty where it can't be read or is not as we write
    it.
    """
    try:
        known = read_json(path)
    except (OSError, Damaged):  # as good as none
        return {}
    return known if isinstance(known, dict) else {}


def read_bytes(path: Path) -> bytes:
    """Return a file of ours, empty where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def read_text(path: Path) -> str:
    """Return a text of ours, empty where there is none."""
    return read_bytes(path).decode("utf-8", "replace")
