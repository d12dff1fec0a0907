"""logs.txt while an attempt runs: each line as it comes, redacted, bounded.

The first half of the limit is written at once, for those who follow; of what comes after it the
last half is kept and written at the end, behind a line that says how much is missing.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from pathlib import Path

from agentorch.agents.base import Line
from agentorch.redact import LineRedactor, Redactor


class Logbook:
    """Writes one attempt's logs.txt; `found` counts the secrets that were redacted."""

    def __init__(self, path: Path, redactor: Redactor, limit_chars: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file = os.fdopen(os.open(path, flags, 0o640), "w", encoding="utf-8", errors="replace")
        self._redactors = {
            name: LineRedactor(redactor) for name in ("stdout", "stderr", "agentorch")
        }
        self._room = limit_chars // 2
        self._limit = limit_chars // 2
        self._tail: deque[str] = deque()
        self._tail_chars = 0
        self._missing = 0

    def note(self, text: str) -> None:
        """A line of our own."""
        self.line(Line("agentorch", text))

    def line(self, line: Line) -> None:
        """A line of the agent's."""
        cut = " [line cut]" if line.cut else ""
        self._write(f"{line.stream}: {self._redactors[line.stream].line(line.text)}{cut}\n")

    def _write(self, text: str) -> None:
        if self._room >= len(text):
            self._room -= len(text)
            self._file.write(text)
            self._file.flush()
            return
        self._room = 0
        self._tail.append(text[-self._limit :] if self._limit else "")
        self._tail_chars += len(self._tail[-1])
        self._missing += len(text) - len(self._tail[-1])
        while self._tail_chars > self._limit:
            dropped = len(self._tail.popleft())
            self._tail_chars -= dropped
            self._missing += dropped

    def close(self) -> None:
        """Writes what was kept of the end; durable when it returns."""
        if self._missing:
            self._file.write(f"[… {self._missing} characters left out …]\n")
        self._file.writelines(self._tail)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    @property
    def found(self) -> Counter[str]:
        """The kinds of secrets that were met, and how often."""
        return sum((redactor.found for redactor in self._redactors.values()), Counter())
