"""The unified diff in an answer, and git applying it to the workspace.

A diff stands in blocks that are marked ```diff or ```patch, all of which count, or bare, from the
first line that begins with `diff --git` on. git reads nothing that the workspace configures, and
by itself leaves alone what is outside of it, behind a symbolic link or in `.git` (git-apply(1)).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from agentorch.workspace import git

_OPENING = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})[ \t]*(?:diff|patch)\b.*", re.IGNORECASE)
_BARE = re.compile(r"^diff --git ", re.MULTILINE)
_FILE = re.compile(r"^(?:---|\+\+\+) (?:[ab]/)?(?P<path>[^\t\n]+)", re.MULTILINE)
_RENAMED = re.compile(r"^(?:rename|copy) to (?P<path>.+)$", re.MULTILINE)
# A directory that is no repository: git then works without one, and without its configuration.
NO_REPOSITORY = Path("/dev/null")


class NotApplied(Exception):
    """git refused the patch; str() is what it said."""


def find_patch(answer: str) -> str | None:
    """Return the patch in an answer; None where there is none. Pure."""
    blocks = list(_blocks(answer.splitlines()))
    if blocks:
        return "".join(blocks)
    bare = _BARE.search(answer)
    return None if bare is None else f"{answer[bare.start() :].rstrip()}\n"


def _blocks(lines: Iterable[str]) -> Iterable[str]:
    fence, block = "", [""]
    for line in lines:
        opening = None if fence else _OPENING.fullmatch(line)
        if opening is not None:
            fence, block = opening["fence"], []
        # Every line of a diff has a mark before it: one that ends a block is none of them.
        elif fence and line.rstrip().startswith(fence) and not line.strip(fence[0]).strip():
            fence = ""
            yield _without_blank_end(block)
        elif fence:
            block.append(line)
    if fence:
        yield _without_blank_end(block)


def _without_blank_end(lines: list[str]) -> str:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return "".join(f"{line}\n" for line in lines)


def changed_files(patch: str) -> tuple[str, ...]:
    """Return the files that a patch names. Pure."""
    names = [match["path"].rstrip() for match in _FILE.finditer(patch)]
    names += [match["path"].rstrip() for match in _RENAMED.finditer(patch)]
    return tuple(dict.fromkeys(name for name in names if name != "/dev/null"))


def apply(patch: str, work: Path) -> None:
    """Apply a patch whole or not at all. Raises NotApplied.

    Models miscount the lines of a hunk more often than they get the lines wrong: what does not
    apply as it stands is tried with its lines counted anew.
    """
    content = patch.encode("utf-8", "replace")
    refusals = []
    for flags in ((), ("--recount",)):
        ended = git.run(git.apply_argv(*flags), git.Place(NO_REPOSITORY, work=work), content)
        if ended.returncode == 0:
            return
        refusals.append(git.words(ended.stderr))
    raise NotApplied(refusals[0])
