"""Plain English in names and docstrings: what stops a reader, found in the source.

`python tests/lint/wording.py PATH…` lists the findings of files and directories.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

HEADLESS = re.compile(r"(?:What|Whether|Where|Who|Whom|Whose|How|When|Nobody|That)\b")
# Words that only this project's earlier drafts used in this sense.
ODD = re.compile(r"\b(?:told|hears?|heard|in the hands of|nobody asks)\b", re.IGNORECASE)

IRREGULAR = {
    *("told", "shown", "left", "made", "done", "found", "held", "kept", "heard", "said", "seen"),
    *("sent", "taken", "given", "known", "written", "meant", "built", "brought", "bought", "gone"),
    *("lost", "met", "paid", "spent", "begun", "bound", "chosen", "drawn", "fed"),
    *("got", "gotten", "hidden", "laid", "led", "proven", "put", "spelled", "split", "struck"),
    *("sworn", "thrown", "torn", "understood", "worn", "spoken", "broken", "driven", "fallen"),
    *("forgotten", "frozen", "grown", "hung", "shut", "sunk", "stuck", "taught", "thought", "won"),
}
NOT_PARTICIPLES = {"need", "seed", "feed", "speed", "embed", "proceed", "exceed", "shed", "sched"}
SMALL_WORDS = {
    *("about", "after", "again", "alone", "as", "at", "before", "below", "beneath", "beside", "by"),
    *(
        "down",
        "else",
        "first",
        "for",
        "from",
        "here",
        "in",
        "into",
        "last",
        "now",
        "of",
        "off",
        "on",
    ),
    *("once", "or", "out", "over", "since", "so", "there", "through", "to", "under", "until", "up"),
    *("where", "who", "with", "within", "without"),
}
# What a name may begin with before a noun: from_document(), to_json(), with_limits(), first_line().
IDIOMATIC = {"from", "to", "as", "on", "with", "without", "first", "last"}
# Names that the field itself uses so.
ALLOWED: set[str] = {"received"}  # a method of waitress that a parser overrides


def is_participle(word: str) -> bool:
    """Return whether a word is a past participle, as far as its form says."""
    return word in IRREGULAR or (
        word.endswith("ed") and len(word) > len("bed") and word not in NOT_PARTICIPLES
    )


def is_badly_named(name: str) -> bool:
    """Return whether a function's name is no more than a participle or a preposition."""
    words = name.strip("_").split("_")
    if name in ALLOWED or name.startswith("__"):
        return False
    if words[0] in SMALL_WORDS - IDIOMATIC or (words[0] in IDIOMATIC and len(words) == 1):
        return True
    rest = [word for word in words if not is_participle(word)]
    return len(rest) < len(words) and is_participle(words[0]) and set(rest) <= SMALL_WORDS


def findings(path: Path) -> Iterator[str]:
    """Yield `path:line: what is wrong` for each name and each docstring's first line."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        line = getattr(node, "lineno", 1)
        first = (ast.get_docstring(node) or "").split("\n")[0]
        if HEADLESS.match(first) or ODD.search(first):
            yield f"{path}:{line}: docstring: {first}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_badly_named(node.name):
            yield f"{path}:{line}: name: {node.name}()"


def main() -> None:
    """Print the findings below the paths of the command line."""
    found = [
        finding
        for place in map(Path, sys.argv[1:])
        for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))
        for finding in findings(path)
    ]
    print(*found, f"{len(found)} findings", sep="\n")  # noqa: T201  (its answer)


if __name__ == "__main__":
    main()
