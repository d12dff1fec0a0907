"""The environment file: `VAR=value` lines, as systemd reads an EnvironmentFile=."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from agentorch.core.errors import Misconfigured

SYSTEM_ENV_FILE = Path("/etc/agentorch/agentorch.env")


def read(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment file as systemd.exec(5) reads an EnvironmentFile=.

    A file that AGENTORCH_ENV_FILE names must be there; the system's may be missing or unreadable
    for this user. Raises Misconfigured.
    """
    named = environ.get("AGENTORCH_ENV_FILE")
    path = Path(named) if named else SYSTEM_ENV_FILE
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, PermissionError) as problem:
        if named is None:
            return {}
        raise Misconfigured(f"AGENTORCH_ENV_FILE: {named!r}: {problem.strerror}") from problem
    except (OSError, UnicodeDecodeError) as problem:
        raise Misconfigured(f"{path}: can't be read as UTF-8 text: {problem}") from problem
    return parse(text, str(path))


_ASSIGNMENT = re.compile(
    r"""[ \t]*(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*
        (?P<value>(?:'[^']*'|"(?:[^"\\]|\\.)*"|\\.|[^'"\\\n])*)""",
    re.VERBOSE | re.DOTALL,
)
_PIECE = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)|([^'"\\]+)""", re.DOTALL)


def parse(text: str, name: str) -> dict[str, str]:
    """`VAR=value` lines: quotes, backslash continuation, comments with # or ;. Pure."""
    values: dict[str, str] = {}
    place = 0
    while place < len(text):
        end = text.find("\n", place)
        end = len(text) if end < 0 else end
        line = text[place:end].strip()
        if not line or line[0] in "#;":
            place = end + 1
            continue
        match = _ASSIGNMENT.match(text, place)
        if match is None or text[match.end() : match.end() + 1] not in ("", "\n"):
            number = text.count("\n", 0, place) + 1
            raise Misconfigured(f"{name}: line {number}: expected NAME=value, found {line[:60]!r}")
        values[match["name"]] = _unquote(match["value"])
        place = match.end() + 1
    return values


def _unquote(value: str) -> str:
    pieces = []
    for single, double, escaped, plain in _PIECE.findall(value.rstrip(" \t\r")):
        if escaped:
            pieces.append("" if escaped == "\n" else escaped)
        else:
            unescaped = re.sub(r'\\(["\\`$])', r"\1", double).replace("\\\n", "")
            pieces.append(single or unescaped or plain)
    return "".join(pieces)


def quote(environment: Mapping[str, str]) -> bytes:
    """Return NAME="value" lines, as systemd.exec(5) reads an EnvironmentFile=. Pure."""
    special = str.maketrans({character: f"\\{character}" for character in '\\"$`'})
    lines = (f'{name}="{value.translate(special)}"\n' for name, value in environment.items())
    return "".join(lines).encode(errors="surrogateescape")
