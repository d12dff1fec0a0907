"""Reads TOML, ours and the administrator's: every problem with its place."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentorch.core.errors import Misconfigured


def read(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """Return a TOML document; {} where an optional one is not there. Raises Misconfigured."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as problem:
        if optional:
            return {}
        raise Misconfigured(f"{path}: {problem.strerror}") from problem
    except OSError as problem:
        raise Misconfigured(f"{path}: {problem.strerror}") from problem
    except ValueError as problem:  # not UTF-8, or not TOML
        raise Misconfigured(f"{path}: {problem}") from problem


def unknown_keys(found: Mapping[str, Any], known: frozenset[str]) -> None:
    """Raise ValueError where a table has a key that nobody reads."""
    if unknown := sorted(found.keys() - known):
        raise ValueError(f"{', '.join(unknown)}: unknown key")


def amount(found: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """Return a number, 0 or more. Raises ValueError."""
    value = found.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError(f"{key}: expected a number, 0 or more")
    return float(value)


def text(found: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """Return a string. Raises ValueError."""
    value = found.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"{key}: expected a string")  # noqa: TRY004  (of a document, not of ours)
    return value


def words(found: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return a list of strings, one at least. Raises ValueError."""
    value = found.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{key}: expected a list of strings")
    return tuple(value)
