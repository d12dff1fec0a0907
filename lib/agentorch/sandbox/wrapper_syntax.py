"""Paths and variables for wrappers that take them in a syntax of their own.

What such a syntax could read as something else is refused in words, not quoted by guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from agentorch.core.errors import Misconfigured

PLAIN = re.compile(r"/[A-Za-z0-9._/+@=~-]*")


def plain(path: Path, wrapper: str) -> str:
    """Return the path as text that is read as itself by every wrapper. Raises Misconfigured."""
    text = str(path)
    if not PLAIN.fullmatch(text):
        raise Misconfigured(
            f"SANDBOX_WRAPPER: {wrapper!r} can't take the path {text!r}:"
            " use letters, digits and ._/+@=~- or the wrapper bwrap"
        )
    return text


def environment_lines(environment: Mapping[str, str], wrapper: str) -> bytes:
    """NAME=value lines, as podman and docker read an --env-file. Raises Misconfigured."""
    many = [name for name, value in environment.items() if "\n" in value]
    if many:
        raise Misconfigured(
            f"SANDBOX_WRAPPER: {wrapper!r} can't take variables of several lines: {', '.join(many)}"
        )
    return "".join(f"{name}={value}\n" for name, value in environment.items()).encode(
        errors="surrogateescape"
    )
