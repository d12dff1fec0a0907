"""Secrets in text: where they are, and the text without them. What was found is never repeated.

Three things are secrets: what has the form of a known kind of key, what is assigned to the name of
one and looks random (secretforms), and the values that the caller passes, as they are or in base64
or with a URL's or JSON's escapes. UUIDs, hashes, names of keys, placeholders and code are none.

Redacting twice is redacting once: what is found is masked and the rest is searched again, until
nothing is found; each mask and each `[redacted:KIND]` is a wall that no pattern looks through.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import quote, quote_plus

from agentorch.redaction.patterns import (
    PEM_END,
    Span,
    is_last_pem_line,
    opens_private_key,
    pem_body_end,
    secrets_in,
)

MIN_VALUE_CHARS = 8
_MIN_LINE_CHARS = 16
WORTHLESS = "step-token"
_WALL = "\0"
_MARKER = re.compile(r"\[redacted:[a-z-]{1,32}\]")
_MORE_BASE64 = re.compile(r"[A-Za-z0-9+/_=-]{0,4}")


@dataclass(frozen=True)
class Finding:
    """The place of a secret: text[start:end]. It holds nothing of the secret."""

    kind: str
    start: int
    end: int


class Redactor:
    """Finds secrets of known forms, and `values`: those shorter than 8 characters are ignored.

    `worthless` values are found as WORTHLESS: tokens that are good for nothing any more when
    anybody reads what they stand in.
    """

    def __init__(self, values: Iterable[str] = (), worthless: Iterable[str] = ()) -> None:
        self._worthless = _longest_first(
            form for value in worthless for form in (*_plain_forms(value), *_base64_forms(value))
        )
        kept = {part for value in values for part in _parts(value)}
        self._plain = _longest_first(form for value in kept for form in _plain_forms(value))
        self._base64 = _longest_first(form for value in kept for form in _base64_forms(value))

    def __repr__(self) -> str:
        return "Redactor()"

    def find(self, text: str) -> list[Finding]:
        """Every secret, in order; they don't overlap. A `[redacted:KIND]` is none."""
        masked = text
        if "[redacted:" in text:
            masked = _mask(text, [match.span() for match in _MARKER.finditer(text)])
        found = [
            (place, place + len(form), WORTHLESS)
            for form in self._worthless
            for place in _places(masked, form)
        ]
        found = _merge(found)
        masked = _mask(masked, [(start, end) for start, end, _ in found])
        while new := _merge(self._search(masked)):
            found += new
            masked = _mask(masked, [(start, end) for start, end, _ in new])
        return [Finding(kind, start, end) for start, end, kind in sorted(found)]

    def redact_tail(self, text: str) -> str:
        """`redact` for a text that lost its beginning: the rest of a private key goes, too."""
        raw = text.encode("utf-8", "replace")
        end = PEM_END.search(raw)
        if end is None or raw.rfind(b"-BEGIN", 0, end.start()) >= 0:
            return self.redact(text)
        behind = raw[end.end() :].decode("utf-8", "replace")
        return f"[redacted:private-key]{self.redact(behind)}"

    def redact(self, text: str) -> str:
        """Return the text with each secret as `[redacted:KIND]`."""
        return _replace(text, self.find(text))

    def _search(self, text: str) -> Iterator[Span]:
        for form in self._plain:
            if form not in text:
                continue
            for place in _places(text, form):
                yield place, place + len(form), "value"
        for form in self._base64:
            if form not in text:
                continue
            for place in _places(text, form):
                end = place + len(form)
                more = _MORE_BASE64.match(text, end)
                yield place, more.end() if more else end, "value"
        yield from secrets_in(text.encode("latin-1", "replace"))


class LineRedactor:
    """Redacts a stream line by line; knows when it is inside a private key."""

    def __init__(self, redactor: Redactor) -> None:
        self.found: Counter[str] = Counter()
        self._redactor = redactor
        self._inside = False
        self._body_seen = False

    def line(self, text: str) -> str:
        """Return the line without its secrets; each line of a private key's body is one marker."""
        body_end = self._body_end(text) if self._inside else 0
        rest = text[body_end:]
        findings = self._redactor.find(rest)
        shown = rest
        if findings:
            self.found.update(finding.kind for finding in findings)
            shown = _replace(rest, findings)
        if not self._inside and opens_private_key(_bytes(rest)):
            self._inside, self._body_seen = True, bool(findings)
        return _body_marker(text[:body_end]) + shown

    def pass_over(self, text: str) -> None:
        """Read a line that nobody is shown: only whether a private key is in it matters."""
        if self._inside or "PRIVATE" in text:
            self.line(text)

    def _body_end(self, text: str) -> int:
        """Return how much of the line belongs to the body; afterwards `_inside` is up to date."""
        raw = _bytes(text)
        end = pem_body_end(raw, 0)
        if end < len(raw) and self._body_seen and is_last_pem_line(raw):
            end = len(raw)
        self._inside = end == len(raw)
        if not self._inside and not PEM_END.match(raw, end):
            return 0
        if raw[:end].strip() and not self._body_seen:
            self._body_seen = True
            self.found["private-key"] += 1
        return end


# ---- the values that are passed ---------------------------------------------------------------


def _parts(value: str) -> Iterator[str]:
    """Yield a value, and of one with several lines each long line: streams show one line at a
    time.
    """
    lines = [line.strip() for line in value.splitlines()]
    long_lines = [line for line in lines if len(line) >= _MIN_LINE_CHARS and "-----" not in line]
    for part in {value, value.strip(), *(long_lines if len(lines) > 1 else ())}:
        # A wall must not be found in its turn; no variable of an environment holds one.
        if len(part) >= MIN_VALUE_CHARS and _WALL not in part:
            yield part


def _plain_forms(value: str) -> Iterator[str]:
    raw = value.encode("utf-8", "surrogateescape")
    yield value
    for escaped in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield escaped
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), escaped)
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]


def _base64_forms(value: str) -> Iterator[str]:
    """Yield the characters of base64 that this value alone decides, at each of the three
    alignments.
    """
    raw = value.encode("utf-8", "surrogateescape")
    for shift, first in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(bytes(shift) + raw)
        whole = (shift + len(raw)) * 8 // 6
        form = encoded[first:whole].decode()
        yield form
        yield form.translate(str.maketrans("+/", "-_"))


def _longest_first(forms: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(forms), key=lambda form: (-len(form), form)))


def _places(text: str, form: str) -> Iterator[int]:
    place = text.find(form)
    while place >= 0:
        yield place
        place = text.find(form, place + len(form))


# ---- spans ------------------------------------------------------------------------------------


def _merge(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order, those that overlap as one, of the kind of the longest."""
    merged: list[Span] = []
    for start, end, kind in sorted(spans, key=lambda span: (span[0], -span[1])):
        if merged and start < merged[-1][1]:
            before = merged.pop()
            longer = before if before[1] - before[0] >= end - start else (start, end, kind)
            merged.append((before[0], max(before[1], end), longer[2]))
        else:
            merged.append((start, end, kind))
    return merged


def _mask(text: str, spans: Iterable[tuple[int, int]]) -> str:
    pieces = []
    done = 0
    for start, end in spans:
        pieces += [text[done:start], _WALL * (end - start)]
        done = end
    return "".join([*pieces, text[done:]])


def _replace(text: str, findings: list[Finding]) -> str:
    ends = [(0, 0, ""), *((f.start, f.end, f"[redacted:{f.kind}]") for f in findings)]
    after = [text[before[1] : start[0]] + start[2] for before, start in pairwise(ends)]
    return "".join(after) + text[ends[-1][1] :]


def _body_marker(body: str) -> str:
    if not body.strip():
        return body
    return "[redacted:private-key]" + body[len(body.rstrip("\r\n")) :]


def _bytes(text: str) -> bytes:
    return text.encode("latin-1", "replace")


def without_secrets(value: Any, redactor: Redactor) -> Any:
    """Return a JSON value with every string in it redacted."""
    if isinstance(value, str):
        return redactor.redact(value)
    if isinstance(value, dict):
        return {key: without_secrets(inner, redactor) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_secrets(inner, redactor) for inner in value]
    return value
