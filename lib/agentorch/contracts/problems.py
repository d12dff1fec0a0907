"""The wording of problems. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def kind(value: Any) -> str:
    """Return what a JSON value is, in words."""
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def short(value: Any) -> str:
    """Return a value as it can be shown in a line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def suggestion(word: str, known: Iterable[str], page: str = "") -> str:
    """Return a hint in brackets: the known word that is near, and the page to see; empty where
    none.
    """
    # what is longer than any name of ours is not compared: that takes its time
    near = difflib.get_close_matches(word, list(known), 1) if len(word) <= 128 else []
    hints = [f"did you mean {near[0]!r}?"] if near else []
    hints += [f"see {page}"] if page else []
    return f" ({' '.join(hints)})" if hints else ""
