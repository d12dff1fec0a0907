"""The events that Claude Code prints with `--output-format stream-json`, line by line. Pure.

    {"type": "system", "subtype": "init", "session_id", "cwd", "model", "tools"}
    {"type": "system", "subtype": "api_retry", "error_status", "error"}
    {"type": "assistant", "message": {"id", "model", "content": [text, tool_use…], "usage"}}
    {"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id", "is_error"}]}}
    {"type": "rate_limit_event", "rate_limit_info": {"status", "resetsAt"}}
    {"type": "result", "subtype", "is_error", "result" or "errors", "terminal_reason", …}

An answer of the API that is an error comes as an assistant's message too, with `error` beside it.
Nothing is believed to have the shape that it should have, and memory stays flat.
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from agentorch.agents.json_lines import MAX_COUNT, REPORT_CHARS, parse_line, unescape
from agentorch.core.process_end import Line
from agentorch.core.text import one_line, printable

# The model of messages that the program itself made.
SYNTHETIC = "<synthetic>"
EVIDENCE_CHARS = 480
STDERR_LINES = 8
MAX_FILES = 1000
MAX_OPEN_CALLS = 1000
# The tools that change files, and where they are told which.
PATHS = {"Edit": "file_path", "Write": "file_path", "NotebookEdit": "notebook_path"}
SINCE = "model_usage_since_last_result"
CHANGING = frozenset({*PATHS, "Bash"})


def is_end(line: Line) -> bool:
    """Return whether this is the result event: nothing that matters comes after it."""
    if line.stream != "stdout":
        return False
    if line.cut:
        return cut_result(line.text) is not None
    event = parse_line(line.text) if '"type":"result"' in line.text else None
    return isinstance(event, dict) and event.get("type") == "result"


class Transcript:
    """The state of a run after the lines that were read so far."""

    def __init__(self) -> None:
        self.events = 0
        # whether the last line on stdout was no event, and the last such line
        self.broken = False
        self.plain = ""
        self.result: Mapping[str, Any] | None = None
        self.session_id: str | None = None
        self.model: str | None = None
        self.text = ""
        # what is known of the API's last error, a line each
        self.error: tuple[str, ...] = ()
        self.retry = ""
        self.resets_at: int | None = None
        # the changing tools that were refused, and whether any of them went through
        self.denied: list[str] = []
        self.changed = False
        self.files: dict[str, None] = {}
        self.tool_calls = 0
        self.stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._work = ""
        self._open: dict[str, tuple[str, str]] = {}
        self._message = ""
        self._asked: dict[str, float] = {}
        self._used: dict[str, float] = {}

    def line(self, line: Line) -> None:
        """One more line."""
        if not line.text.strip():
            return
        if line.stream != "stdout":
            self.stderr.append(one_line(line.text, EVIDENCE_CHARS))
            return
        event = cut_result(line.text) if line.cut else parse_line(line.text)
        self.broken = not isinstance(event, dict)
        if isinstance(event, dict):
            self.events += 1
            self._event(event)
        else:
            self.plain = one_line(line.text, EVIDENCE_CHARS)

    @property
    def metrics(self) -> dict[str, float]:
        """Tokens, cost and counts; without a result only what the messages said."""
        counted: dict[str, float] = {"tool_calls": self.tool_calls}
        if self.result is None:
            return counted | self._asked
        turns = amount(self.result.get("num_turns"))
        return counted | {"turns": turns} | self._used

    def _event(self, event: Mapping[str, Any]) -> None:
        match event:
            case {"type": "assistant", "message": {"content": list(content)} as message}:
                self._assistant(event, message, content)
            case {"type": "user", "message": {"content": list(content)}}:
                for block in content:
                    self._read_tool_result(block)
            case {"type": "system", "subtype": "init"}:
                self._read_init(event)
            case {"type": "system", "subtype": "api_retry"}:
                self.retry = f"retry {event.get('error_status')} {event.get('error')}"
            case {"type": "system", "subtype": "permission_denied", "tool_use_id": str(call)}:
                self._forget_call(call)
            case {"type": "rate_limit_event", "rate_limit_info": dict(limit)}:
                self._read_limit(limit)
            case {"type": "result"}:
                self._read_result(event)

    def _read_result(self, event: Mapping[str, Any]) -> None:
        self.result = event
        before = self._used if SINCE in event else {}
        self._used = {
            name: before.get(name, 0) + count for name, count in usage_since_last(event).items()
        }
        denials = event.get("permission_denials")
        for denial in denials if isinstance(denials, list) and not self.denied else ():
            match denial:
                case {"tool_name": str(tool)} if tool in CHANGING:
                    self._deny(tool, _subject(tool, denial.get("tool_input")))

    def _read_init(self, event: Mapping[str, Any]) -> None:
        self.session_id = _name(event.get("session_id")) or self.session_id
        self.model = _name(event.get("model")) or self.model
        self._work = _name(event.get("cwd"), 4096) or self._work

    def _assistant(
        self, event: Mapping[str, Any], message: Mapping[str, Any], content: list[Any]
    ) -> None:
        texts = [str(one["text"]) for one in content if _is(one, "text") and "text" in one]
        if event.get("is_api_error_message") or event.get("error"):
            self.error = tuple(_error(event, "".join(texts)))
            return
        if message.get("model") == SYNTHETIC:
            return
        self._count(message)
        if event.get("parent_tool_use_id") is None:
            self.model = _name(message.get("model")) or self.model
            self.text = "".join(texts)[:REPORT_CHARS] or self.text
        for block in content:
            match block:
                case {"type": "tool_use", "id": str(call), "name": str(tool)}:
                    self._read_call(call, tool, block.get("input"))

    def _count(self, message: Mapping[str, Any]) -> None:
        """Each message is printed once a block, always with the usage of its beginning."""
        identity, usage = message.get("id"), message.get("usage")
        if not isinstance(usage, dict) or identity == self._message:
            return
        self._message = str(identity)
        cached = amount(usage.get("cache_read_input_tokens"))
        fresh = amount(usage.get("input_tokens")) + amount(usage.get("cache_creation_input_tokens"))
        for name, count in (("tokens_in", fresh + cached), ("tokens_cached", cached)):
            self._asked[name] = self._asked.get(name, 0) + count

    def _read_call(self, call: str, tool: str, arguments: object) -> None:
        self.tool_calls += 1
        if tool not in CHANGING or len(self._open) >= MAX_OPEN_CALLS:
            return
        self._open[call] = (tool, _subject(tool, arguments))

    def _forget_call(self, call: str) -> None:
        if call in self._open:
            self._deny(*self._open.pop(call))

    def _deny(self, tool: str, subject: str) -> None:
        if len(self.denied) < MAX_FILES:
            self.denied.append(one_line(f"{tool} {subject}"))

    def _read_tool_result(self, block: object) -> None:
        match block:
            case {"type": "tool_result", "tool_use_id": str(call), "is_error": True}:
                self._open.pop(call, None)
            case {"type": "tool_result", "tool_use_id": str(call)} if call in self._open:
                self.changed = True
                self._wrote(*self._open.pop(call))

    def _wrote(self, tool: str, path: str) -> None:
        name = relative_path(path, self._work) if tool in PATHS else None
        if name is not None and len(self.files) < MAX_FILES:
            self.files[name] = None

    def _read_limit(self, limit: Mapping[str, Any]) -> None:
        when = limit.get("resetsAt")
        rejected = limit.get("status") == "rejected" and isinstance(when, int)
        self.resets_at = when if rejected else None


def cut_result(text: str) -> dict[str, Any] | None:
    """Return the result event on a line that was longer than what is kept of one: what decides
    stands before its text, and the text's beginning is an answer's. None where it is another event.
    """
    before, _, behind = text.partition(',"result":"')
    event = parse_line(f"{before}}}") if behind else None
    if not isinstance(event, dict) or event.get("type", "result") != "result":
        return None
    if "subtype" not in event or "is_error" not in event:
        return None
    return {**event, "type": "result", "result": unescape(behind[: 2 * REPORT_CHARS])}


def usage_since_last(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the tokens and the cost since the last result: a resumed session's totals hold all of
    it.
    """
    for key in (SINCE, "modelUsage"):
        models = result.get(key)
        if isinstance(models, dict):
            each = [one for one in models.values() if isinstance(one, dict)]
            return {name: _sum(each, keys) for name, keys in _USED.items()}
    return {}


_USED = {
    "tokens_in": ("inputTokens", "cacheReadInputTokens", "cacheCreationInputTokens"),
    "tokens_cached": ("cacheReadInputTokens",),
    "tokens_out": ("outputTokens",),
    "tokens_reasoning": ("thinkingTokens",),
    "cost_usd": ("costUSD",),
}


def _sum(models: list[dict[str, Any]], keys: tuple[str, ...]) -> float:
    return sum(amount(model.get(key)) for model in models for key in keys)


def amount(value: object) -> float:
    """Return a count or a sum of money; 0 for what is none."""
    # JSON's true is an int to Python
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return value if 0 <= value <= MAX_COUNT else 0


def _subject(tool: str, arguments: object) -> str:
    """Return the file that a changing tool is to change, or the command that it is to run."""
    subject = arguments.get(PATHS.get(tool, "command")) if isinstance(arguments, dict) else ""
    return subject if isinstance(subject, str) else ""


def relative_path(path: str, work: str) -> str | None:
    """Return the path relative to the workspace, None where it is not in there."""
    if not path or not work:
        return None
    name = posixpath.relpath(posixpath.join(work, path), work)
    return None if name == ".." or name.startswith("../") else printable(name)


def _error(event: Mapping[str, Any], text: str) -> Iterator[str]:
    yield f"error {event.get('error')}"
    for key in ("api_error", "api_error_type"):
        if event.get(key):
            yield f"{key} {event[key]}"
    if event.get("api_error_status"):
        yield f"status {event['api_error_status']}"
    yield f"said {text}"


def _is(block: object, kind: str) -> bool:
    return isinstance(block, dict) and block.get("type") == kind


def _name(value: object, limit: int = 128) -> str | None:
    return one_line(value, limit) if isinstance(value, str) and value else None
