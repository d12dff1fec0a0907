"""The events that Kimi Code prints. Pure.

stdout has a JSON object a line: `meta` (its version, a retry, and last of all the session's id, on
success only), `assistant` (text, tool_calls), `tool`. A failure is a line on stderr:
`error: failed to run prompt: CODE: words`.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from agentorch.agents.json_lines import REPORT_CHARS
from agentorch.core.process_end import Line
from agentorch.core.text import one_line, printable

NAME = "kimi"
# What it prints last where it succeeded.
END = '{"role":"meta","type":"session.resume_hint"'
HOOK = "UserPromptSubmit hook\n\n"
FAILED = "error: failed to run prompt: "
BROKER = "agentorch: "
TAIL_LINES = 8
EVIDENCE_CHARS = 500
MAX_FILES = 10_000
CHANGING = ("Write", "Edit")

_WORK = re.compile(r"The workspace is (.+)\.\n")
# What it prints after every failure, and what it tells of its commands' output.
_NOISE = ("See log: ",)


class Transcript:
    """The state of a run after the lines read so far; bounded, however many there are."""

    def __init__(self) -> None:
        self.final = ""
        self.session_id: str | None = None
        self.ended = False
        self.error = ""
        self.retry = ""
        self.turns = 0
        self.tool_calls = 0
        self.files: dict[str, None] = {}
        self.malformed = ""
        self.any = False
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._work = ""

    def line(self, line: Line) -> None:
        if line.stream == "stderr":
            self._stderr(line.text)
        elif line.text.strip():
            self._stdout(line)

    def _stderr(self, text: str) -> None:
        if text.startswith(FAILED):
            self.error = text.removeprefix(FAILED)
        elif text.strip() and not text.startswith(_NOISE):
            self.tail.append(one_line(text, EVIDENCE_CHARS))

    def _stdout(self, line: Line) -> None:
        self.any = True
        try:
            event = json.loads(line.text)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict):
            self.malformed = ""
            self._event(event)
        else:
            self.malformed = one_line(line.text, EVIDENCE_CHARS)

    def _event(self, event: Mapping[str, Any]) -> None:
        match event:
            case {"role": "assistant", "content": str(text)} if text.startswith(HOOK):
                found = _WORK.match(text, len(HOOK))
                self._work = found[1] if found else self._work
            case {"role": "assistant"}:
                self.turns += 1
                self._read_text(event.get("content"))
                self._read_calls(event.get("tool_calls"))
            case {"role": "meta", "type": "session.resume_hint"}:
                session = event.get("session_id")
                self.session_id = session if isinstance(session, str) else None
                self.ended = True
            case {"role": "meta", "type": "turn.step.retrying"}:
                words = (event.get(key) for key in ("error_name", "status_code", "error_message"))
                self.retry = " ".join(str(word) for word in words if word is not None)

    def _read_text(self, text: object) -> None:
        if isinstance(text, str) and text.strip():
            self.final = text[:REPORT_CHARS]

    def _read_calls(self, calls: object) -> None:
        for call in calls if isinstance(calls, list) else ():
            self.tool_calls += 1
            match call:
                case {"function": {"name": str(name), "arguments": str(arguments)}}:
                    if name in CHANGING and len(self.files) < MAX_FILES:
                        self._read_change(arguments)

    def _read_change(self, arguments: str) -> None:
        try:
            path = json.loads(arguments).get("path")
        except (ValueError, RecursionError, AttributeError):  # the model's, as it wrote them
            return
        if isinstance(path, str) and path and (self._work or not path.startswith("/")):
            name = posixpath.relpath(posixpath.join(self._work or "/", path), self._work or "/")
            if name != ".." and not name.startswith("../"):
                self.files[printable(name)] = None

    def evidence(self) -> list[str]:
        """Return the facts, as lines for the rules."""
        broker = self.error.find(BROKER)
        if broker >= 0:  # what the broker decided is not for the provider's rules
            return [one_line(self.error[broker:], EVIDENCE_CHARS)]
        lines = [f"error {self.error}" if self.error else "", *self.tail]
        lines.append(f"retry {self.retry}" if self.retry else "")
        return [one_line(line, EVIDENCE_CHARS) for line in lines if line]
