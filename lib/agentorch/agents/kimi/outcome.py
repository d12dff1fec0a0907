"""The outcome of a run of Kimi Code: from its exit, and what it printed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from agentorch.agents import failure_rules
from agentorch.agents.exit_outcome import details, left_well, outcome_of_exit
from agentorch.agents.kimi.events import NAME, Transcript
from agentorch.core.job import Outcome
from agentorch.core.process_end import Exit, Line
from agentorch.core.states import OutcomeClass
from agentorch.core.text import one_line, printable


def outcome(exit_: Exit, lines: Iterable[Line]) -> Outcome:
    """Return what the run came to: how it ended first, then what it said."""
    transcript = Transcript()
    for line in lines:
        transcript.line(line)
    ended = outcome_of_exit(exit_, NAME) or _decide(exit_, transcript)
    return replace(
        ended,
        report=printable(transcript.final),
        metrics={"turns": transcript.turns, "tool_calls": transcript.tool_calls},
        session_id=transcript.session_id,
        files=tuple(transcript.files),
    )


def _decide(exit_: Exit, transcript: Transcript) -> Outcome:
    if transcript.error:
        return _failure(exit_, transcript)
    if left_well(exit_) and transcript.ended:
        return _success(transcript)
    if left_well(exit_):
        return _no_end(transcript)
    if transcript.ended:
        words = f"{NAME}: exit code {exit_.code} after its result"
        return _agent_error("agent_exit_nonzero", words, details(exit_))
    return _failure(exit_, transcript)


def _success(transcript: Transcript) -> Outcome:
    first = next((line for line in transcript.final.splitlines() if line.strip()), "")
    if not first:
        return Outcome(OutcomeClass.PARSE_ERROR, f"{NAME} said nothing", error="no_result")
    return Outcome(OutcomeClass.SUCCESS, one_line(first))


def _no_end(transcript: Transcript) -> Outcome:
    """Return the failure of a run that left well without its last event."""
    if transcript.malformed:
        words = f"{NAME}: its output was cut off: {transcript.malformed}"
        return Outcome(OutcomeClass.PARSE_ERROR, one_line(words), error="truncated_output")
    words = f"{NAME} ended without a result"
    return Outcome(OutcomeClass.PARSE_ERROR, words, error="no_result")


def _failure(exit_: Exit, transcript: Transcript) -> Outcome:
    evidence = transcript.evidence()
    said = evidence[0] if evidence else transcript.malformed or "no reason given"
    words = f"{NAME}: exit code {exit_.code}: {said}"
    return _agent_error(failure_rules.UNCLASSIFIED, words, {**details(exit_), "evidence": evidence})


def _agent_error(code: str, words: str, more: Mapping[str, Any]) -> Outcome:
    return Outcome(OutcomeClass.AGENT_ERROR, one_line(words), error=code, details=more)
