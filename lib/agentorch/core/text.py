"""Text from agents made safe to show: one line, printable, fenced. Pure."""

from __future__ import annotations

import re

SUMMARY_CHARS = 200

# ECMA-48: control sequences, then strings up to their terminator, then two-character escapes.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]P^_X]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]{0,4096}(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]?"
)
# Also what turns the reading direction: it makes a line show other than it is.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SPACE = re.compile(r"\s+")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"#{1,4} ")
_BACKTICKS = re.compile(r"`+")


def printable(text: str) -> str:
    """`text` without terminal escapes and control characters but tab and newline.

    Lone surrogates, which JSON can spell and UTF-8 can't, become question marks.
    """
    plain = _CONTROL.sub("", _ESCAPE.sub("", text.replace("\r\n", "\n")))
    return plain.encode("utf-8", "replace").decode("utf-8")


def one_line(text: str, limit: int = SUMMARY_CHARS) -> str:
    """`text` as one printable line of at most `limit` characters; an ellipsis says it was cut."""
    # No more is looked at than could be shown: the text may have megabytes.
    head = printable(_SPACE.sub(" ", text[: limit * 50]))
    line = _SPACE.sub(" ", head).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def demote_headings(markdown: str, levels: int) -> str:
    """Return Markdown with its headings so many levels lower, those in code blocks left alone."""
    lines, fence = [], ""
    for line in markdown.split("\n"):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and line.strip() == mark[1] and mark[1].startswith(fence):
            fence = ""
        heading = not fence and _HEADING.match(line)
        lines.append("#" * levels + line if heading else line)
    return "\n".join(lines)


def code_block(text: str) -> str:
    """Return a Markdown code block that nothing in `text` can end."""
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{printable(text).rstrip()}\n{fence}\n"
