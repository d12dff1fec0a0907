"""The outcome of a run of Claude Code: from its exit, its result event, and its lines before. Pure.

Exit 0 alone means nothing: a refused tool, a result that is an error and a local command that asks
no model end so too. A run that was refused a changing tool (Edit, Write, Bash) and in which no
changing tool went through did not do its work: that is `policy`. Where others went through, or
none was refused, its own word counts; what was refused then stands in the details.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from agentorch.agents.claude.events import EVIDENCE_CHARS, Transcript, amount
from agentorch.agents.exit_outcome import details, left_well, outcome_of_exit, signal_name
from agentorch.agents.failure_rules import UNCLASSIFIED
from agentorch.agents.json_lines import REPORT_CHARS
from agentorch.core.job import Outcome
from agentorch.core.process_end import Exit, Line
from agentorch.core.states import OutcomeClass
from agentorch.core.text import one_line, printable

MAX_EVIDENCE = 20
MAX_DENIED = 10
# It catches SIGTERM and SIGHUP, and then exits as a shell would say it.
SIGNALLED = 128
# What a result's subtype says for certain; everything else is a matter of patterns.
_STOPS = {
    "error_max_turns": (OutcomeClass.BUDGET, "max_turns"),
    "error_max_budget_usd": (OutcomeClass.BUDGET, "max_cost"),
}


def outcome(name: str, exit_: Exit, lines: Iterable[Line]) -> Outcome:
    """Return what the run came to."""
    transcript = Transcript()
    for line in lines:
        transcript.line(line)
    ended = outcome_of_exit(exit_, name) or _verdict(name, exit_, transcript)
    return replace(
        ended,
        report=printable(ended.report or transcript.text),
        metrics=transcript.metrics,
        session_id=transcript.session_id,
        model=transcript.model,
        files=tuple(transcript.files),
    )


def _verdict(name: str, exit_: Exit, transcript: Transcript) -> Outcome:
    result = transcript.result
    if result is None:
        return _without_result(name, exit_, transcript)
    if result.get("subtype") != "success" or result.get("is_error") is not False:
        return _failure(name, exit_, transcript, result)
    text = result.get("result")
    if not isinstance(text, str):
        return _unreadable(f"{name}: a result event without its text", "malformed_output", exit_)
    if not amount(result.get("num_turns")):
        return _unreadable(f"{name} asked no model: {text}", "no_result", exit_)
    return replace(_outcome_of_result(name, exit_, transcript, text), report=text[:REPORT_CHARS])


def _outcome_of_result(name: str, exit_: Exit, transcript: Transcript, text: str) -> Outcome:
    """Return what a run came to that has a result, which is no error."""
    if not left_well(exit_):
        words = f"{name}: exit code {exit_.code} after its result"
        return _outcome(OutcomeClass.AGENT_ERROR, words, "agent_exit_nonzero", exit_)
    if transcript.denied and not transcript.changed:
        words = f"{name} was refused what it needed: {transcript.denied[0]}"
        return _outcome(OutcomeClass.POLICY, words, "permission_denied", exit_)
    denied = {"denied": transcript.denied[:MAX_DENIED]} if transcript.denied else {}
    return Outcome(OutcomeClass.SUCCESS, _first_line(text) or "no words", details=denied)


def _without_result(name: str, exit_: Exit, transcript: Transcript) -> Outcome:
    if exit_.code is not None and exit_.code > SIGNALLED:
        words = f"{name} was ended by {signal_name(exit_.code - SIGNALLED)}"
        return _outcome(OutcomeClass.AGENT_ERROR, words, "agent_exit_nonzero", exit_)
    if not left_well(exit_):
        said = (
            transcript.stderr[0]
            if transcript.stderr
            else f"exit code {exit_.code} without a result"
        )
        return _unclassified_failure(f"{name}: {said}", exit_, transcript)
    if transcript.broken and not transcript.events:
        return _unreadable(f"{name} printed no events", "malformed_output", exit_)
    if transcript.broken:
        return _unreadable(f"{name}: the end of its output is cut", "truncated_output", exit_)
    return _unreadable(f"{name} ended without a result", "no_result", exit_)


def _failure(name: str, exit_: Exit, transcript: Transcript, result: Mapping[str, Any]) -> Outcome:
    words = f"{name}: {next(_words(result), 'its result is an error')}"
    stop = _STOPS.get(str(result.get("subtype")))
    if stop is not None:
        return _outcome(stop[0], words, stop[1], exit_)
    return _unclassified_failure(words, exit_, transcript)


def _words(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a failed result says, in its errors or in place of the answer."""
    errors = result.get("errors")
    yield from (str(one) for one in errors if one) if isinstance(errors, list) else ()
    text = result.get("result")
    if isinstance(text, str) and text:
        yield text


def _evidence(transcript: Transcript) -> Iterator[str]:
    """Yield the facts that patterns look at, the most certain first."""
    if transcript.resets_at is not None:
        yield f"rate limit rejected, resets_at {transcript.resets_at}"
    if transcript.result is None and transcript.retry:
        yield transcript.retry
    result = transcript.result or {}
    for key in ("terminal_reason", "subtype"):
        if result.get(key):
            yield f"{key} {result[key]}"
    yield from transcript.error
    yield from (f"result {words}" for words in _words(result))
    if transcript.plain:
        yield f"stdout {transcript.plain}"
    yield from (f"stderr {line}" for line in transcript.stderr)


def _unclassified_failure(words: str, exit_: Exit, transcript: Transcript) -> Outcome:
    evidence = [one_line(line, EVIDENCE_CHARS) for line in _evidence(transcript)][:MAX_EVIDENCE]
    failure = _outcome(OutcomeClass.AGENT_ERROR, words, UNCLASSIFIED, exit_)
    return replace(failure, details={**failure.details, "evidence": evidence})


def _unreadable(words: str, code: str, exit_: Exit) -> Outcome:
    return _outcome(OutcomeClass.PARSE_ERROR, words, code, exit_)


def _outcome(kind: OutcomeClass, words: str, code: str, exit_: Exit) -> Outcome:
    return Outcome(kind, one_line(words), error=code, details=details(exit_))


def _first_line(text: str) -> str:
    """Return the first line with words on it."""
    return next((one_line(line) for line in text.split("\n") if line.strip()), "")
