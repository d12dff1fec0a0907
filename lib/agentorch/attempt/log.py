"""logs.txt while an attempt runs: each line as it comes, redacted, bounded.

The first half of the limit is written at once, for those who follow; of what comes after it the
last half is kept, and written at the end behind a line that says how much is missing.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from dataclasses import replace
from pathlib import Path

from agentorch.core.process_end import Line
from agentorch.core.text import printable
from agentorch.process.output import Kept, trim_ends
from agentorch.redaction.redactor import LineRedactor, Redactor

STREAMS = ("stdout", "stderr")


class Logbook:
    """The writer of one attempt's logs.txt."""

    def __init__(self, path: Path, redactor: Redactor, limit_chars: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file = os.fdopen(os.open(path, flags, 0o640), "w", encoding="utf-8", errors="replace")
        self._redactor = redactor
        self._redactors = {name: LineRedactor(redactor) for name in STREAMS}
        self._room = limit_chars // 2
        self._tail = Tail(limit_chars // 2)

    def note(self, text: str) -> None:
        """Write a line of our own."""
        self._write(f"agentorch: {self._redactor.redact(text)}\n")

    def line(self, line: Line) -> None:
        """Write a line of the agent's. Past the first half it costs next to nothing."""
        if self._room <= 0:
            self._tail.add(f"{line.stream}: {line.text}\n")
            return
        cut = " [line cut]" if line.cut else ""
        # without escapes: they would also hide a secret that they stand in
        said = self._redactors[line.stream].line(printable(line.text))
        text = f"{line.stream}: {said}{cut}\n"
        self._write(text[: self._room])
        self._room -= len(text)

    def settle(self) -> Counter[str]:
        """Write what was kept of the end; the kinds of secrets that were met, and how often."""
        ends = self._tail.ends()
        ends = replace(ends, head=printable(ends.head), tail=printable(ends.tail))
        self._write(redact_ends(ends, self._redactor))
        found = sum((one.found for one in self._redactors.values()), Counter[str]())
        return found + Counter(one.kind for one in self._redactor.find(ends.head + ends.tail))

    def close(self) -> None:
        """Nothing is added any more; durable when it returns."""
        os.fsync(self._file.fileno())
        self._file.close()

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()


class Tail:
    """The last so many characters of what is added, as it came."""

    def __init__(self, limit_chars: int) -> None:
        self._limit = limit_chars
        self._texts: deque[str] = deque()
        self._chars = 0
        self._total = 0

    def add(self, text: str) -> None:
        """Add a line; the first ones go when there are too many."""
        self._total += len(text)
        self._texts.append(text[-self._limit :] if self._limit else "")
        self._chars += len(self._texts[-1])
        while self._chars > self._limit:
            self._chars -= len(self._texts.popleft())

    def ends(self) -> Kept:
        """Return both ends of the text, as far as they are kept."""
        text = "".join(self._texts)
        if self._total == self._chars:
            return Kept(text)
        return trim_ends("", self._total, f"\n{text}" if len(self._texts) > 1 else text)


def redact_ends(ends: Kept, redactor: Redactor) -> str:
    """Return what is kept of a text, without its secrets, and a line for what is missing.

    Escapes stay in it unless a secret is hidden behind them.
    """
    plain = replace(ends, head=printable(ends.head), tail=printable(ends.tail))
    if len(redactor.find(plain.head + plain.tail)) > len(redactor.find(ends.head + ends.tail)):
        ends = plain
    if not ends.missing:
        return redactor.redact(ends.head)
    note = f"[… {ends.missing} characters left out …]\n"
    return redactor.redact(ends.head) + note + redactor.redact_tail(ends.tail)
