"""The events that Codex prints, `codex exec --json`. Pure.

    thread.started {thread_id}   turn.started   turn.completed {usage}   turn.failed {error}
    item.started, item.completed {item: {type: agent_message | command_execution | file_change | …}}
    error {message}              also for what it tries again: `Reconnecting... 1/2 (…)`

It names neither its model nor a cost, and counts no calls of the model: a run is one turn. The
tokens of a resumed session are those of all its turns together; the broker's figures are the run's.
A command that its own sandbox, where it works, kept from something is often missing from the events
(11 of 12 runs of 0.169.0), so `tool_calls` is the least that there were.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from agentorch.agents.json_lines import MAX_COUNT, REPORT_CHARS, unescape
from agentorch.core.process_end import Line
from agentorch.core.text import one_line, printable

FILES = 1000
EVIDENCE_CHARS = 500
LAST_LINES = 8

_TALK = frozenset({"agent_message", "reasoning", "error", "todo_list"})
_USAGE = {
    "tokens_in": "input_tokens",
    "tokens_cached": "cached_input_tokens",
    "tokens_out": "output_tokens",
    "tokens_reasoning": "reasoning_output_tokens",
}
# How a command begins its output when the CLI's own sandbox could not be set up.
_NO_SANDBOX = re.compile(
    r"\s*(bwrap: |thread '\w+' \(\d+\) panicked at linux-sandbox|sandbox error)"
)
_AGAIN = re.compile(r"Reconnecting\.\.\. \d+/\d+ ")
_STATUS = re.compile(r"(?:unexpected|last) status:? (\d{3})")
_RESET = re.compile(r"try again at ([A-Z][a-z]{2} \d{1,2})[a-z]{2}, (\d{4} \d{1,2}:\d\d [AP]M)")
_MESSAGE_HEAD = re.compile(r'\{"type":"item\.completed","item":\{[^{}]*?"text":"')


def is_end(line: Line) -> bool:
    """Return whether this is the event that ends a run."""
    if line.stream != "stdout" or not line.text.startswith('{"type":"turn.'):
        return False
    return _parse_line(line.text).get("type") in ("turn.completed", "turn.failed")


class Transcript:
    """The state of a run after the lines read so far; no more of them than a report's limit."""

    def __init__(self) -> None:
        self.session_id: str | None = None
        self.text = ""
        self.files: dict[str, None] = {}
        self.completed = False
        self.failure = ""
        self.error = ""
        self.commands = 0
        self.without_sandbox = 0
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self._counts = {"turns": 0, "tool_calls": 0}
        self._usage: dict[str, int] = {}
        self._events = 0
        self._odd = ""

    @property
    def metrics(self) -> dict[str, float]:
        """Return the figures of contracts/result.schema.json that were printed; none before the
        first.
        """
        return {**self._usage, **self._counts} if self._events else {}

    def evidence(self) -> list[str]:
        """Return what rules about ends look at: the error, its status, the last words on stderr."""
        message = self.failure or self.error
        status = _STATUS.search(message)
        lines = [
            *([f"codex: {message}"] if message else []),
            *([f"status {status[1]}"] if status else []),
            *([f"resets_at {resets}"] if (resets := _resets_at(message)) else []),
            *([f"stdout {self._odd}"] if self._odd else []),
            *(f"stderr {line}" for line in self.last),
        ]
        return [one_line(line, EVIDENCE_CHARS) for line in lines]

    def incomplete(self) -> tuple[str, str]:
        """Return the code and the words for an output that has no end."""
        if self._odd and not self._events:
            return "malformed_output", "codex printed something other than its events"
        if self._odd:
            return "truncated_output", "codex's output breaks off in the middle of an event"
        return "no_result", "codex ended without saying so"

    def line(self, line: Line) -> None:
        if line.stream != "stdout":
            self._aside(line.text)
        elif line.cut:
            self._cut(line.text)
        elif line.text.strip():
            event = _parse_line(line.text)
            self._odd = "" if event else one_line(line.text, EVIDENCE_CHARS)
            self._event(event)

    def _aside(self, text: str) -> None:
        if words := one_line(text[: 4 * EVIDENCE_CHARS], EVIDENCE_CHARS):
            self.last.append(words)

    def _cut(self, text: str) -> None:
        """Read a line longer than what is kept: an answer's beginning is still an answer's."""
        head = _MESSAGE_HEAD.match(text)
        if head is None or '"type":"agent_message"' not in head[0]:
            self._odd = one_line(text, EVIDENCE_CHARS)
            return
        self._events += 1
        self.text = _report(unescape(text[head.end() :][: 2 * REPORT_CHARS]))

    def _event(self, event: Mapping[str, Any]) -> None:
        self._events += bool(event)
        match event:
            case {"type": "thread.started", "thread_id": str(name)}:
                self.session_id = one_line(name)
            case {"type": "turn.started"}:
                self._counts["turns"] += 1
            case {"type": "turn.completed"}:
                self.completed = True
                self._usage = _usage_figures(event.get("usage"))
            case {"type": "turn.failed"}:
                self.failure = _message(event.get("error")) or "the turn failed"
            case {"type": "error", "message": str(message)}:
                self.error = _AGAIN.sub("", message)
            case {"type": "item.completed", "item": {"type": str(kind)}}:
                self._counts["tool_calls"] += kind not in _TALK
                self._item(event["item"])

    def _item(self, item: Mapping[str, Any]) -> None:
        match item:
            case {"type": "agent_message", "text": str(text)}:
                self.text = _report(text)
            case {"type": "command_execution"}:
                self._command(item)
            case {"type": "file_change", "status": "completed", "changes": list(changes)}:
                self._read_changes(changes)

    def _command(self, item: Mapping[str, Any]) -> None:
        self.commands += 1
        output = item.get("aggregated_output")
        failed = item.get("exit_code") != 0 and isinstance(output, str)
        self.without_sandbox += failed and _NO_SANDBOX.match(str(output)) is not None

    def _read_changes(self, changes: list[object]) -> None:
        for change in changes[:FILES]:
            match change:
                case {"path": str(path)} if len(self.files) < FILES:
                    self.files[printable(path)] = None


def _parse_line(text: str) -> dict[str, Any]:
    """Return the object on a line; empty where there is none."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # half an event, or none of Codex's
        return {}
    return document if isinstance(document, dict) else {}


def _message(error: object) -> str:
    match error:
        case {"message": str(message)}:
            return message
    return ""


def _resets_at(message: str) -> int | None:
    """Return when a usage limit ends; for one that ends on the same day Codex prints only the
    hour.
    """
    found = _RESET.search(message)
    if found is None:
        return None
    try:
        when = datetime.strptime(f"{found[1]} {found[2]} +0000", "%b %d %Y %I:%M %p %z")
    except ValueError:  # the 31st of February
        return None
    return int(when.timestamp())


def _usage_figures(usage: object) -> dict[str, int]:
    if not isinstance(usage, dict):
        return {}
    told = {ours: usage.get(theirs) for ours, theirs in _USAGE.items()}
    return {
        name: count
        for name, count in told.items()
        # JSON's true is an int to Python
        if isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= MAX_COUNT
    }


def _report(text: str) -> str:
    return printable(text[:REPORT_CHARS])
