"""The events that OpenCode prints, `--format json`. Pure.

    {"type": "step_start",  "sessionID": …, "part": {…}}                   a request of the model
    {"type": "text",        "part": {"text": …}}                           whole, when it ends
    {"type": "tool_use",    "part": {"tool": …, "state": {"status": …}}}   only when it is done
    {"type": "step_finish", "part": {"reason": …, "tokens": {…}, "cost": …}}
    {"type": "error",       "error": {"name": …, "data": {…}}}

The exit code is 0 also where a refused question ended the run; only a last step that finished with
the reason `stop` says that the model was done. Retries are not printed at all.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from agentorch.agents.json_lines import MAX_COUNT, REPORT_CHARS, unescape
from agentorch.core.process_end import Line
from agentorch.core.text import one_line, printable

NAME = "opencode"
EVIDENCE_LINES = 20
FIRST_LINES = 5
EVIDENCE_CHARS = 500
FILES = 1000

# A text's line that was longer than what is kept of one: its beginning is still worth having.
_TEXT = '"type":"text","text":"'


def is_end(line: Line) -> bool:
    """Return whether the model says with this line that it is done."""
    if line.stream != "stdout" or not line.text.startswith('{"type":"step_finish"'):
        return False
    return _reason(parse_line(line.text)) == "stop"


class Transcript:
    """The state of a run after the lines read so far: the last step's text, some lines of
    evidence.
    """

    def __init__(self) -> None:
        self.session_id: str | None = None
        self.reason = ""
        self.errors: list[str] = []
        self.denied: list[str] = []
        self.files: dict[str, None] = {}
        self.broken = 0
        self.ends_broken = False
        self.turns = 0
        self.tool_calls = 0
        self.tool_errors = 0
        self._tokens: dict[str, float] = {}
        self._cost_usd = 0.0
        self._texts: list[str] = []
        self._room = REPORT_CHARS
        self._facts: list[str] = []
        self._stderr: list[str] = []
        self._stderr_last: deque[str] = deque(maxlen=EVIDENCE_LINES - FIRST_LINES)

    @property
    def report(self) -> str:
        """Return what the model said in its last step."""
        return "\n\n".join(self._texts)

    @property
    def first_line(self) -> str:
        """The first line of that with anything on it, in short."""
        lines = (one_line(line) for text in self._texts for line in text.splitlines())
        return next((line for line in lines if line), "")

    def line(self, line: Line) -> None:
        """One line more."""
        if not line.text.strip():
            return
        if line.stream != "stdout":
            self._talk(line.text[: EVIDENCE_CHARS * 2])
            return
        event = parse_line(line.text)
        self.ends_broken = event is None
        if event is None:
            self._unreadable(line)
        else:
            self._event(event)

    def _talk(self, text: str) -> None:
        first = len(self._stderr) < FIRST_LINES
        (self._stderr if first else self._stderr_last).append(text)

    def _unreadable(self, line: Line) -> None:
        _, head, text = line.text.partition(_TEXT)
        if line.cut and head:
            self._text(unescape(text))
        else:
            self.broken += 1

    def _event(self, event: Mapping[str, Any]) -> None:
        match event:
            case {"sessionID": str(session)} if self.session_id is None:
                self.session_id = one_line(session) or None
        match event:
            case {"type": "step_start"}:
                self._begin()
            case {"type": "text", "part": {"text": str(text)}}:
                self._text(text)
            case {"type": "tool_use", "part": {"tool": str(tool), "state": dict(state)}}:
                self._tool(tool, state)
            case {"type": "step_finish", "part": dict(part)}:
                self._finish(part)
            case {"type": "error", "error": dict(error)}:
                self._error(error)
            case {"type": "error"}:
                self.errors.append("an error without words")

    def _begin(self) -> None:
        self.reason = ""
        self._texts.clear()
        self._room = REPORT_CHARS

    def _text(self, text: str) -> None:
        kept = printable(text[: self._room]).strip()
        self._room -= min(self._room, len(text))
        if kept:
            self._texts.append(kept)

    def _tool(self, tool: str, state: Mapping[str, Any]) -> None:
        self.tool_calls += 1
        if state.get("status") == "error":
            self.tool_errors += 1
            words = str(state.get("error"))
            # what it says where a question was answered with no; a rule's no is another sentence
            if "rejected permission" in words:
                self.denied.append(one_line(f"permission denied: {tool}: {words}"))
            return
        for path in changed_files(tool, state):
            if len(self.files) < FILES:
                self.files[path] = None

    def _finish(self, part: Mapping[str, Any]) -> None:
        self.turns += 1
        self.reason = str(part.get("reason"))
        for name, amount in tokens(part).items():
            self._tokens[name] = self._tokens.get(name, 0) + amount
        self._cost_usd += _amount(part.get("cost"))

    def _error(self, error: Mapping[str, Any]) -> None:
        facts = list(error_lines(error))
        self.errors.append(facts[0])
        self._facts += facts[: EVIDENCE_LINES - len(self._facts)]

    def evidence(self) -> list[str]:
        """Return what the patterns are tried on: its errors' facts, what was denied, then stderr's
        first and last lines."""
        finish = [f"finish {self.reason}"] if self.reason else []
        told = (*self._stderr, *self._stderr_last)
        return [*self._facts, *self.denied, *finish, *told][:EVIDENCE_LINES]

    def metrics(self) -> dict[str, float]:
        """Return the figures of all steps. No cost where it has no prices for its model."""
        counts = {"turns": self.turns, "tool_calls": self.tool_calls}
        errors = {"tool_errors": self.tool_errors} if self.tool_errors else {}
        cost = {"cost_usd": round(self._cost_usd, 9)} if self._cost_usd else {}
        return {**counts, **errors, **self._tokens, **cost}


def parse_line(text: str) -> dict[str, Any] | None:
    """Return the object on this line, None where there is none."""
    if not text.startswith("{"):
        return None
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):  # cut, or not its own line at all
        return None
    return event if isinstance(event, dict) else None


def tokens(part: Mapping[str, Any]) -> dict[str, float]:
    """Return a step's tokens in our words: it counts cached ones and reasoning beside input and
    output.
    """
    counts = part.get("tokens")
    if not isinstance(counts, dict):
        return {}
    cache = counts.get("cache")
    cached = cache if isinstance(cache, dict) else {}
    read, written = _amount(cached.get("read")), _amount(cached.get("write"))
    reasoning = _amount(counts.get("reasoning"))
    return {
        "tokens_in": _amount(counts.get("input")) + read + written,
        "tokens_out": _amount(counts.get("output")) + reasoning,
        "tokens_cached": read,
        "tokens_reasoning": reasoning,
    }


def changed_files(tool: str, state: Mapping[str, Any]) -> Iterator[str]:
    """Yield the files that a finished tool call says it changed, below the workspace."""
    match tool, state:
        case "edit" | "write", {"input": {"filePath": str(path)}, "title": str(title)}:
            # a title is the path as seen from the repository's top
            if title and (path == title or path.endswith(f"/{title}")):
                yield title.lstrip("/")
        case "apply_patch", {"metadata": {"files": list(files)}}:
            for file in files:
                match file:
                    case {"relativePath": str(path)} if path:
                        yield path.lstrip("/")


def error_lines(error: Mapping[str, Any]) -> Iterator[str]:
    """Yield an error's facts, a line each; the first one is its words."""
    given = error.get("data")
    data: Mapping[str, Any] = given if isinstance(given, dict) else {}
    name = str(error.get("name"))
    yield str(data.get("message") or name)
    yield f"error {name}"
    if data.get("statusCode") is not None:
        # on one line: what a pattern says of the one may depend on the other
        yield f"status {data['statusCode']}{_waiting(data.get('responseHeaders'))}"
    if data.get("responseBody"):
        yield f"body {data['responseBody']}"


def _waiting(headers: object) -> str:
    after = headers.get("retry-after") if isinstance(headers, dict) else None
    return "" if after is None else f", retry-after {after}"


def _reason(event: Mapping[str, Any] | None) -> str:
    match event:
        case {"type": "step_finish", "part": {"reason": str(reason)}}:
            return reason
    return ""


def _amount(value: object) -> float:
    # JSON's true is an int to Python; what is no amount counts as nothing
    right = isinstance(value, int | float) and not isinstance(value, bool)
    return value if right and 0 <= value <= MAX_COUNT else 0  # type: ignore[operator,return-value]
