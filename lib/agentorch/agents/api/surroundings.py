"""The workspace as text, for a model that can't look around.

First a list of its files with their sizes, then as many of them whole as fit: those that the
question names, then README files, then the smallest. Ignored files, and what git does not keep,
are left out; a file that is not UTF-8 text, or longer than FILE_CHARS and not named, is listed
only. The bounds are in characters.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentorch.core.text import code_block, one_line
from agentorch.workspace import git

LISTED_FILES = 1000
WALKED_FILES = 20_000
LISTED_CHARS = 30_000
FILE_CHARS = 24_000
SHOWN_CHARS = 120_000

_WORD = re.compile(r"[\w./+@-]+")


@dataclass(frozen=True)
class Seen:
    """A file of the workspace."""

    path: str
    size: int


def workspace_text(work: Path, question: str) -> str:
    """Return the workspace, as the part of a prompt."""
    files = list(list_files(work))
    words = path_words(question)
    shown = _contents(work, sort_by_relevance(files, words), words)
    return "\n".join(("## Workspace\n", listing(files), *shown)).rstrip() + "\n"


def list_files(work: Path) -> Iterator[Seen]:
    """Yield the regular files of a work tree, sorted by path."""
    for path in sorted(_tracked_files(work) or _walk_files(work)):
        try:
            status = os.lstat(work / path)
        except OSError:  # tracked and deleted
            continue
        if stat.S_ISREG(status.st_mode):
            yield Seen(path, status.st_size)


def ls_files_argv() -> list[str]:
    """Return the files that git keeps or would. The tree may be another user's: it is only
    listed.
    """
    return [
        *("-c", "safe.directory=*"),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]


def _tracked_files(work: Path) -> set[str]:
    ended = git.run(["-C", str(work), *ls_files_argv()], None)
    names = ended.stdout.split(b"\0") if ended.returncode == 0 else []
    return {os.fsdecode(name) for name in names if name}


def _walk_files(work: Path) -> set[str]:
    found: set[str] = set()
    for top, directories, names in os.walk(work):
        directories[:] = sorted(name for name in directories if name != ".git")
        found |= {os.path.relpath(os.path.join(top, name), work) for name in names}
        if len(found) > WALKED_FILES:
            break
    return found


# ---- decisions, pure --------------------------------------------------------------------------


def path_words(question: str) -> frozenset[str]:
    """Return the words of a question that could be paths."""
    return frozenset(word.rstrip(".").removeprefix("./") for word in _WORD.findall(question))


def sort_by_relevance(files: Iterable[Seen], words: Collection[str]) -> list[Seen]:
    """Return the files in the order in which they are shown while there is room."""
    return sorted(files, key=lambda one: (_rank(one.path, words), one.size, one.path))


def _rank(path: str, words: Collection[str]) -> int:
    if _is_mentioned(path, words):
        return 0
    return 1 if path.rpartition("/")[2].upper().startswith("README") else 2


def _is_mentioned(path: str, words: Collection[str]) -> bool:
    """Return whether the question has this path, or the name of the file with its suffix."""
    name = path.rpartition("/")[2]
    return path in words or ("." in name.strip(".") and name in words)


def listing(files: Sequence[Seen]) -> str:
    """Return the list of files; it says how many it leaves out."""
    lines: list[str] = []
    room = LISTED_CHARS
    for one in files[:LISTED_FILES]:
        line = f"{one_line(one.path, 300)} ({one.size} bytes)"
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
    left = len(files) - len(lines)
    more = [f"[and {left} more files]"] if left else []
    return code_block("\n".join([*lines, *more] or ["[no files]"]))


# ---- contents ---------------------------------------------------------------------------------


def _contents(work: Path, files: Iterable[Seen], words: Collection[str]) -> Iterator[str]:
    room = SHOWN_CHARS
    for one in files:
        limit = room if _is_mentioned(one.path, words) else min(room, FILE_CHARS)
        # UTF-8 has four bytes a character at most
        text = _text(work / one.path) if 0 < one.size <= 4 * limit else None
        if text is not None and len(text) <= limit:
            room -= len(text)
            yield f"### {one_line(one.path, 300)}\n\n{code_block(text)}"


def _text(path: Path) -> str | None:
    """Return the text of a file; None where it is none, or not to be had."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            content = file.read()
        return None if b"\0" in content else content.decode("utf-8")
    except (OSError, UnicodeDecodeError):  # it went, is private, or is no text
        return None
