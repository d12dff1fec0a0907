"""The agents' output in the journal: each line as it comes, redacted, and only so many a second.

Where stderr is not the journal, none of it is shown: it is in logs.txt. What is left out is counted
and said, here and by the journal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from agentorch.attempt.log import STREAMS
from agentorch.config.settings import Settings
from agentorch.core.attempt import Attempt
from agentorch.core.process_end import Line
from agentorch.core.text import printable
from agentorch.redaction.redactor import LineRedactor, Redactor
from agentorch.systemd.journal import Journal
from agentorch.systemd.message_ids import Message

# BURST + 30 RATE_PER_S is less than the 10000 entries that journald takes of a unit in 30 s
# (journald.conf(5), RateLimitBurst=).
RATE_PER_S = 200
BURST = 2000
MOST_CHARS = 4096
# A line of so many characters counts as two, and so on: redacting it takes as long.
COST_CHARS = 1024


@dataclass(frozen=True)
class Bucket:
    """A limit of lines: `level` of them may pass at `at_s`, and `rate_per_s` more each second.

    Once it was empty, nothing passes until there is a second's worth in it again, so that what
    passes of a flood are runs of lines and not single ones.
    """

    rate_per_s: float
    burst: float
    level: float
    at_s: float
    closed_until_s: float = -math.inf

    def take(self, cost: float, now_s: float) -> Bucket:
        """Return what is left when something passed; closed now where it may not. Pure."""
        level = min(self.burst, self.level + (now_s - self.at_s) * self.rate_per_s)
        if level >= min(cost, self.burst):  # what never fits in is paid for afterwards
            return replace(self, level=level - cost, at_s=now_s)
        wanted = min(max(cost, self.rate_per_s), self.burst)
        opens_s = now_s + (wanted - level) / self.rate_per_s
        return replace(self, level=level, at_s=now_s, closed_until_s=opens_s)


class AgentLines:
    """An attempt's lines for the journal. `now` gives seconds on any clock that only goes on.

    `missing` is how many lines the journal has not.
    """

    def __init__(
        self,
        journal: Journal,
        attempt: Attempt,
        redactor: Redactor,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.missing = 0
        self._journal = journal
        self._redactors = {name: LineRedactor(redactor) for name in STREAMS}
        self._now = now
        self._bucket = Bucket(RATE_PER_S, BURST, BURST, now())
        self._left_out = 0
        self._fields = fields_of(attempt)

    def line(self, line: Line) -> None:
        """Log a line of the agent's. One that is left out costs next to nothing."""
        if not self._journal.is_native:
            return
        if not self._passes(line):
            self._redactors[line.stream].pass_over(line.text)
            self._left_out += 1
            self.missing += 1
            return
        self._say_left_out()
        dropped = self._journal.dropped_entries
        text = self._redactors[line.stream].line(printable(line.text))
        words = display(self._fields["agent"], line, text)
        self._journal.info(words, Message.OUTPUT, **self._fields, stream=line.stream)
        self.missing += self._journal.dropped_entries > dropped

    def _passes(self, line: Line) -> bool:
        now_s = self._now()
        if now_s >= self._bucket.closed_until_s:
            self._bucket = self._bucket.take(1 + len(line.text) / COST_CHARS, now_s)
        return now_s >= self._bucket.closed_until_s

    def close(self) -> None:
        """Log how many lines were left out at the end."""
        self._say_left_out()

    def _say_left_out(self) -> None:
        if not self._left_out:
            return
        words = f"{self._left_out} lines are left out here: agentorch-logs shows logs.txt"
        self._journal.info(words, Message.LEFT_OUT, **self._fields, lines=self._left_out)
        self._left_out = 0


@contextmanager
def agent_lines(settings: Settings, attempt: Attempt, redactor: Redactor) -> Iterator[AgentLines]:
    """Return what tells the journal an attempt's lines while its agent runs."""
    with closing(Journal("agentorch-step", settings)) as journal:
        lines = AgentLines(journal, attempt, redactor)
        try:
            yield lines
        finally:
            lines.close()


def fields_of(attempt: Attempt) -> dict[str, Any]:
    """Return what an entry about an attempt carries. Pure."""
    return {
        "job": attempt.job.job_id,
        "step": attempt.step.step_id,
        "attempt": attempt.number,
        "agent": attempt.step.agent,
        "project": attempt.job.project_id,
    }


def display(agent: str, line: Line, text: str) -> str:
    """Return a line as the journal shows it: behind its agent's name, and of a bounded length.

    Pure.
    """
    whose = agent if line.stream == "stdout" else f"{agent} (stderr)"
    cut = " [line cut]" if line.cut or len(text) > MOST_CHARS else ""
    return f"{whose}: {text[:MOST_CHARS]}{cut}"
