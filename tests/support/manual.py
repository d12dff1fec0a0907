"""The manual's sources as values: pages, their sections, what is listed in these, their tables.

A page is man/NAME.SECTION.scd (scdoc(5)). An item is a line and what is indented below it:

    *--slot*=_NAME_
        The slot to hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAN = ROOT / "man"
_FILE = re.compile(r"(?P<name>.+)\.(?P<section>[1-8])\.scd")
_HEADING = re.compile(r"^# (.+)$", re.MULTILINE)
_BOLD = re.compile(r"\*((?:\\.|[^*\\])+)\*")
_ITEM = re.compile(r"\n*([*_].*)\n\t([\s\S]+)")
_CELL = re.compile(r"^[\[\]|:][\[\] -] ?(.*)$")


@dataclass(frozen=True)
class Item:
    """Something that is listed: how it is spelled, as it stands, and what is said of it."""

    term: str
    body: str

    @property
    def names(self) -> list[str]:
        """The bold words of the term."""
        return bold(self.term)


@dataclass(frozen=True)
class Page:
    """A page of the manual; `text` is its source."""

    name: str
    section: str
    path: Path
    text: str

    @property
    def title(self) -> str:
        return f"{self.name}({self.section})"

    @property
    def headings(self) -> list[str]:
        return list(self._parts)

    def part(self, heading: str) -> str:
        """The text below a heading, up to the next."""
        return self._parts[heading]

    @cached_property
    def _parts(self) -> dict[str, str]:
        # a literal block's lines may look like headings
        blocks = re.split(r"^(```\n.*?^```\n)", self.text, flags=re.MULTILINE | re.DOTALL)
        marked = [_HEADING.sub(r"\0\1\0", b) if n % 2 == 0 else b for n, b in enumerate(blocks)]
        pieces = "".join(marked).split("\0")
        return dict(zip(pieces[1::2], pieces[2::2], strict=True))

    def items(self, *headings: str) -> list[Item]:
        """What is listed in these parts."""
        return [item for heading in headings for item in items(self.part(heading))]

    def named(self, *headings: str) -> dict[str, Item]:
        """The items by each of their names. A name stands there once."""
        found: dict[str, Item] = {}
        for item in self.items(*headings):
            for name in item.names:
                assert name not in found, (self.title, name)
                found[name] = item
        return found

    def table(self, heading: str) -> list[list[str]]:
        """The rows of the part's table, without its head."""
        return rows(self.part(heading))[1:]


@cache
def pages() -> Mapping[str, Page]:
    """All pages by title, as `agentorch-ls(1)`."""
    found = [page(path) for path in sorted(MAN.glob("*.scd"))]
    return {one.title: one for one in found}


def page(path: Path) -> Page:
    """The page in a file."""
    match = _FILE.fullmatch(path.name)
    assert match is not None, path
    return Page(match["name"], match["section"], path, path.read_text("utf-8"))


def bold(text: str) -> list[str]:
    """The bold words of a text. Pure."""
    return [unescaped(word) for word in _BOLD.findall(text)]


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def items(text: str) -> list[Item]:
    """What a text lists. Pure."""
    outside = re.sub(r"^```\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = map(_ITEM.fullmatch, outside.split("\n\n"))
    return [Item(match[1], _said(match[2])) for match in found if match is not None]


def _said(body: str) -> str:
    return " ".join(line.strip().removesuffix("++") for line in body.splitlines())


def rows(text: str) -> list[list[str]]:
    """The rows of a text's table: a line a cell, and `:` goes on with the row. Pure."""
    found: list[list[str]] = []
    for line in text.splitlines():
        match = _CELL.match(line)
        if match is None:
            continue
        if line[0] != ":":
            found.append([])
        found[-1].append(unescaped(match[1]).strip("*"))
    return found
