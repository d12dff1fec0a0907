"""The protocol of a third-party agent: a JSON request in, JSON lines out. Pure.

    {"type": "progress", "text": …}
    {"type": "text", "text": …}                                    goes to the report
    {"type": "usage", "tokens_in": …, "tokens_out": …, "cost_usd": …}   since the last such line
    {"type": "result", "status": "success|failed|needs_human", "summary": …, "report"?: …,
                       "error"?: {"code", "message", "class"?, "evidence"?: […], "resets_at"?},
                       "question"?: …, "model"?: …, "files"?: […]}

`usage` also takes tokens_cached (a part of tokens_in), tokens_reasoning (a part of tokens_out),
turns and tool_calls. `files` are those that it changed, below the workspace. `class` is that of
the outcome (agent_error where it is missing); an error with the code `unclassified` gets the class
of the first rule of `ends` that fits a line of its `evidence`. `resets_at` (RFC 3339) is when a
limit of the class `quota` is over: until then the job is parked.

Any other line is an ordinary line of its log. The last result counts.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from agentorch.agents.base import Request
from agentorch.agents.exit_outcome import details, outcome_of_exit
from agentorch.core.job import Outcome
from agentorch.core.process_end import Exit, Line
from agentorch.core.states import OutcomeClass
from agentorch.core.text import one_line, printable
from agentorch.core.times import moment_of, rfc3339

VERSION = 1
REPORT_CHARS = 1_000_000
QUESTION_CHARS = 2000
EVIDENCE_LINES = 20
EVIDENCE_CHARS = 500
MAX_FILES = 10_000
MAX_MOMENT_CHARS = 40
# Beyond that a number in JSON is no longer the number that was meant (RFC 8259, section 6).
MAX_COUNT = 2**53

_STATUSES = {
    "success": OutcomeClass.SUCCESS,
    "failed": OutcomeClass.AGENT_ERROR,
    "needs_human": OutcomeClass.NEEDS_HUMAN,
}
# What a program can say of its own failure; what is missing here is for us to see.
_CLASSES = frozenset(
    {
        OutcomeClass.AGENT_ERROR,
        OutcomeClass.AUTH,
        OutcomeClass.BUDGET,
        OutcomeClass.INFRA,
        OutcomeClass.PARSE_ERROR,
        OutcomeClass.PATCH,
        OutcomeClass.POLICY,
        OutcomeClass.QUOTA,
        OutcomeClass.TIMEOUT,
    }
)
_AMOUNTS = (
    "tokens_in",
    "tokens_out",
    "tokens_cached",
    "tokens_reasoning",
    "turns",
    "tool_calls",
    "cost_usd",
)
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_STRING = re.compile(r'(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*')


def request_bytes(request: Request) -> bytes:
    """Return the request as one line of JSON."""
    document = {
        "version": VERSION,
        "job_id": request.job_id,
        "step_id": request.step_id,
        "attempt": request.attempt,
        "agent": request.agent,
        "role": request.role,
        "goal": request.goal,
        "prompt": request.prompt,
        "work": str(request.work),
        "home": str(request.home),
        "artifacts": str(request.artifacts),
        "project_id": request.project_id,
        "allowed_tools": None if request.tools is None else list(request.tools),
        "timeout_sec": request.timeout_s,
        "system": request.system,
        "body": request.body,
        "model": request.model,
        "options": dict(request.options),
        "reads_only": request.reads_only,
    }
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def outcome(name: str, exit_: Exit, lines: Iterable[Line]) -> Outcome:
    """Return what the run came to: how it ended first, then the result that it printed."""
    transcript = _Transcript()
    for line in lines:
        if line.stream == "stdout":
            transcript.line(line)
    ended = outcome_of_exit(exit_, name) or _decide(name, exit_, transcript)
    report = ended.report or "".join(transcript.report)
    return replace(ended, report=report, metrics=transcript.usage)


def _decide(name: str, exit_: Exit, transcript: _Transcript) -> Outcome:
    if exit_.code != 0:
        return _nonzero(name, exit_, transcript)
    if transcript.malformed is not None:
        return _unreadable(f"{name}: {transcript.malformed}")
    if transcript.result is None:
        return _unreadable(f"{name} ended without a result line{transcript.last_line}")
    return transcript.result


def _unreadable(words: str) -> Outcome:
    return Outcome(OutcomeClass.PARSE_ERROR, one_line(words), error="parse_error")


def _nonzero(name: str, exit_: Exit, transcript: _Transcript) -> Outcome:
    """Whatever result it printed: a program that succeeded exits with 0."""
    said = transcript.result
    failed = said is not None and said.kind is not OutcomeClass.SUCCESS
    why = f": {said.summary}" if said is not None and failed else transcript.last_line
    return Outcome(
        OutcomeClass.AGENT_ERROR,
        one_line(f"{name}: exit code {exit_.code}{why}"),
        report=said.report if said is not None else "",
        error="agent_exit_nonzero",
        details=details(exit_),
    )


# ---- lines ------------------------------------------------------------------------------------


class _Transcript:
    """The state of a run after the lines read so far; no more than the report's limit."""

    def __init__(self) -> None:
        self.report: list[str] = []
        self.usage: dict[str, float] = {}
        self.result: Outcome | None = None
        self.malformed: str | None = None
        self._room = REPORT_CHARS
        self._last = ""

    @property
    def last_line(self) -> str:
        """Return the last ordinary line, for a message that lacks a reason."""
        return f": {self._last}" if self._last else ""

    def line(self, line: Line) -> None:
        event = parse_line(line.text)
        try:
            match event:
                case {"type": "text", "text": str(text)}:
                    self._append(text)
                case {"type": "progress", "text": str(_)}:
                    pass
                case {"type": "usage"}:
                    self._add(event)
                case {"type": "result"}:
                    self.result = outcome_of_result(event)
                case _:
                    self._last = one_line(line.text) or self._last
        except ValueError as problem:
            self.malformed = str(problem)

    def _append(self, text: str) -> None:
        self.report.append(printable(text[: self._room]))
        self._room -= min(self._room, len(text))

    def _add(self, counts: Mapping[str, Any]) -> None:
        for key, amount in usage_figures(counts).items():
            self.usage[key] = self.usage.get(key, 0) + amount


def parse_line(text: str) -> Any:
    """Return the object on this line, None where there is none."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # an ordinary line that begins like an object
        return None


def unescape(text: str) -> str:
    """Return the beginning of a JSON string, up to its end or the last escape that is whole."""
    whole = _STRING.match(text)
    return str(json.loads(f'"{whole[0]}"')) if whole else ""


def usage_figures(counts: Mapping[str, Any]) -> dict[str, float]:
    """Return a usage line's figures. Raises ValueError with the place of what is none."""
    return {
        key: _amount(key, counts[key], whole=key != "cost_usd")
        for key in _AMOUNTS
        if counts.get(key) is not None
    }


def _amount(key: str, value: object, *, whole: bool) -> float:
    kinds = (int,) if whole else (int, float)
    # JSON's true is an int to Python
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value <= MAX_COUNT:
        expected = "a whole number" if whole else "an amount"
        raise ValueError(f"usage.{key}: {str(value)[:40]!r}: expected {expected}, 0 or more")
    return value


def outcome_of_result(result: Mapping[str, Any]) -> Outcome:
    """Return a result line's outcome. Raises ValueError with the place of what is malformed."""
    status = result.get("status")
    if not isinstance(status, str) or status not in _STATUSES:
        raise ValueError(f"result.status: {str(status)[:40]!r}: expected {' or '.join(_STATUSES)}")
    code, message = _error(result.get("error"))
    failed = status == "failed"
    return Outcome(
        _class(result) if failed else _STATUSES[status],
        one_line(_text(result, "summary") or message or status),
        report=printable(_text(result, "report")[:REPORT_CHARS]),
        error=(code or "agent_failed") if failed else None,
        details=_details(result, message) if failed else {},
        question=printable(_text(result, "question")[:QUESTION_CHARS]) or None,
        model=one_line(_text(result, "model")) or None,
        files=_files(result),
    )


def _class(result: Mapping[str, Any]) -> OutcomeClass:
    said = (result.get("error") or {}).get("class", OutcomeClass.AGENT_ERROR)
    if not isinstance(said, str) or said not in _CLASSES:
        raise ValueError(f"result.error.class: {str(said)[:40]!r} is no class of a failure")
    return OutcomeClass(said)


def _details(result: Mapping[str, Any], message: str) -> dict[str, Any]:
    error = result.get("error") or {}
    evidence = _strings(error.get("evidence"), "result.error.evidence")
    kept = [one_line(line, EVIDENCE_CHARS) for line in evidence[:EVIDENCE_LINES]]
    resets_at = _moment(error.get("resets_at"))
    return {
        **({"message": message} if message else {}),
        **({"evidence": kept} if kept else {}),
        **({"resets_at": resets_at} if resets_at else {}),
    }


def _moment(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and len(value) <= MAX_MOMENT_CHARS:
        with contextlib.suppress(ValueError, OverflowError):
            return rfc3339(moment_of(value))
    words = f"result.error.resets_at: {str(value)[:40]!r}: expected an RFC 3339 date-time"
    raise ValueError(words)


def _files(result: Mapping[str, Any]) -> tuple[str, ...]:
    named = _strings(result.get("files"), "result.files")
    return tuple(printable(path) for path in named[:MAX_FILES])


def _strings(value: object, place: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{place}: expected a list of strings")
    return value


def _text(result: Mapping[str, Any], key: str) -> str:
    match result.get(key):
        case None:
            return ""
        case str(text):
            return text
    raise ValueError(f"result.{key}: expected a string")


def _error(error: object) -> tuple[str, str]:
    match error:
        case None:
            return "", ""
        case {"code": str(code), "message": str(message)} if _CODE.fullmatch(code):
            return code, one_line(message, QUESTION_CHARS)
    raise ValueError("result.error: expected code (like api_error) and message")
