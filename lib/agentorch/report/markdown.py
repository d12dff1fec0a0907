"""The subset of Markdown in which agents' reports are shown: headings, lists, code, emphasis.

Everything else stays plain text: there are no links, images or HTML. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_BLOCKS = 600

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*$")
_ITEM = re.compile(r" {0,6}(?:[-*+]|\d{1,4}[.)])[ \t]+(.*)")
_INLINE = re.compile(r"`([^`\n]+)`|\*\*([^*\n]+)\*\*")


@dataclass(frozen=True)
class Piece:
    """A piece of text; its kind is `text`, `code` or `strong`."""

    kind: str
    text: str


@dataclass(frozen=True)
class Block:
    """A block of kind `heading`, `text`, `code` or `list`; each line of a list is an item."""

    kind: str
    lines: tuple[tuple[Piece, ...], ...]


def blocks(markdown: str) -> tuple[Block, ...]:
    """Return the blocks of a report, MAX_BLOCKS at most; the others are left out."""
    found = []
    for block in _blocks(markdown.split("\n")):
        found.append(block)
        if len(found) == MAX_BLOCKS:
            break
    return tuple(found)


def _blocks(lines: list[str]) -> Iterator[Block]:
    at = 0
    while at < len(lines):
        line = lines[at]
        if fence := _FENCE.match(line):
            end = _fence_end(lines, at + 1, fence[1])
            yield _code(lines[at + 1 : end])
            at = end + 1
        elif heading := _HEADING.fullmatch(line):
            yield Block("heading", (pieces(heading[2]),))
            at += 1
        elif not line.strip():
            at += 1
        else:
            is_list = _ITEM.match(line) is not None
            end = _block_end(lines, at, is_list=is_list)
            yield _list(lines[at:end]) if is_list else _text(lines[at:end])
            at = end


def _fence_end(lines: list[str], start: int, fence: str) -> int:
    """Return the line that ends a code block, the number of lines where none does."""
    for at in range(start, len(lines)):
        line = lines[at].strip()
        if line.startswith(fence) and not line.strip(fence[0]):
            return at
    return len(lines)


def _block_end(lines: list[str], start: int, *, is_list: bool) -> int:
    """Return the first line after `start` that belongs to another block."""
    for at in range(start + 1, len(lines)):
        line = lines[at]
        starts_item = _ITEM.match(line) is not None
        other = not line.strip() or _FENCE.match(line) or _HEADING.fullmatch(line)
        if other or (starts_item and not is_list):
            return at
    return len(lines)


def _code(lines: list[str]) -> Block:
    return Block("code", ((Piece("code", "\n".join(lines)),),))


def _text(lines: list[str]) -> Block:
    return Block("text", (pieces("\n".join(lines)),))


def _list(lines: list[str]) -> Block:
    items: list[str] = []
    for line in lines:
        if item := _ITEM.match(line):
            items.append(item[1])
        else:
            items[-1] += f"\n{line.strip()}"
    return Block("list", tuple(pieces(item) for item in items))


def pieces(text: str) -> tuple[Piece, ...]:
    """Split a text into its plain, code and strong pieces."""
    return tuple(_pieces(text))


def _pieces(text: str) -> Iterator[Piece]:
    at = 0
    for match in _INLINE.finditer(text):
        if match.start() > at:
            yield Piece("text", text[at : match.start()])
        yield Piece("code", match[1]) if match[1] is not None else Piece("strong", match[2])
        at = match.end()
    if at < len(text):
        yield Piece("text", text[at:])
