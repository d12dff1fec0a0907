"""Pages as trees: parsed strictly, and what of a tree an author's text must never change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import html5lib

XHTML = "{http://www.w3.org/1999/xhtml}"
# attributes whose values are words of a person's choice, and only ever shown or read aloud
SPOKEN = frozenset({"aria-label"})


def parsed(page: str) -> ET.Element:
    """The tree of a page. Raises html5lib's ParseError where it is not valid HTML syntax."""
    parser = html5lib.HTMLParser(strict=True, tree=html5lib.getTreeBuilder("etree"))
    found: ET.Element = parser.parse(page)
    return found


def name(element: ET.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def elements(page: str) -> Iterator[ET.Element]:
    return (one for one in parsed(page).iter() if isinstance(one.tag, str))


def markup(page: str) -> Counter[tuple[str, str, str]]:
    """Every element, and every attribute with its value where that is ours."""
    found: Counter[tuple[str, str, str]] = Counter()
    for one in elements(page):
        found[name(one), "", ""] += 1
        for attribute, value in one.attrib.items():
            found[name(one), attribute, "" if attribute in SPOKEN else value] += 1
    return found


def text_of(page: str) -> str:
    return "".join(parsed(page).itertext())


def words_of(page: str, element: str) -> list[str]:
    return ["".join(one.itertext()).strip() for one in elements(page) if name(one) == element]


def policy_of(page: str) -> str:
    metas = [one.attrib for one in elements(page) if name(one) == "meta"]
    return next(one["content"] for one in metas if "http-equiv" in one)


def written(path: Path, text: str) -> None:
    """Puts a text in the place of a file of a job, whatever else is linked to it."""
    path.unlink(missing_ok=True)
    path.write_text(text, "utf-8")
