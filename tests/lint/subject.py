"""The subject of a commit: `area: what it does, in the imperative`, 72 characters at most.

`python tests/lint/subject.py FILE` checks the message in a file, as git's commit-msg hook does.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

SUBJECT = re.compile(r"[a-z0-9_./-]+(?:, [a-z0-9_./-]+)*: [a-zA-Z].*[^.\s]")
MOST_CHARACTERS = 72


def problem(subject: str) -> str | None:
    """Return what is wrong with a commit's subject; None where nothing is."""
    if len(subject) > MOST_CHARACTERS:
        return f"{subject!r} has {len(subject)} characters: {MOST_CHARACTERS} at most"
    if not SUBJECT.fullmatch(subject):
        return f"{subject!r} is not `area: what it does` without a full stop"
    return None


def main() -> None:
    """Exit with what is wrong with the message in the file of the command line."""
    sys.exit(problem(Path(sys.argv[1]).read_text("utf-8").split("\n", 1)[0]))


if __name__ == "__main__":
    main()
