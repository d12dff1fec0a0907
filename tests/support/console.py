"""Console blocks of a document: the commands behind `$ `, and the output that is shown of each.

They are ```console in Markdown; in a page of the manual, literal blocks that begin with `$ `.

A line behind `> ` goes on with the command before it. In the output, `…` stands for anything within
a line, and on a line of its own for any number of lines.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```(?:console)?\n(\$ .*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "--- end of command ---"


@dataclass(frozen=True)
class Shown:
    """A command, and what the document says that it prints."""

    command: str
    output: str


def blocks(text: str) -> list[Shown]:
    """The commands of all console blocks, in order. Pure."""
    return [shown for block in _BLOCK.findall(text) for shown in _commands(block)]


def _commands(block: str) -> list[Shown]:
    pieces = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [_shown(piece.splitlines()) for piece in pieces]


def _shown(lines: Sequence[str]) -> Shown:
    more = 1
    while more < len(lines) and lines[more].startswith("> "):
        more += 1
    command = "\n".join([lines[0], *(line[2:] for line in lines[1:more])])
    return Shown(command, _trimmed("\n".join(lines[more:])))


def run(shown: Sequence[Shown], directory: Path, environment: Mapping[str, str]) -> list[str]:
    """What each command prints on both streams, all of them run by one shell."""
    keep_code = f'code=$?; echo; echo "{_MARK}"; (exit "$code")'
    script = "exec 2>&1\n" + "".join(f"{one.command}\n{keep_code}\n" for one in shown)
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=directory,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return [_trimmed(output) for output in done.stdout.split(f"{_MARK}\n")[: len(shown)]]


def matches(expected: str, printed: str) -> bool:
    """Whether the output is as the document says. Pure."""
    return re.fullmatch(_pattern(expected), printed + "\n") is not None


def _pattern(expected: str) -> str:
    lines = expected.splitlines() or [""]
    return "".join(
        r"(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n"
        for line in lines
    )


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
