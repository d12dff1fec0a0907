"""The outcome of a run of OpenCode: from its exit, and what it printed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agentorch.agents.exit_outcome import details, left_well, outcome_of_exit
from agentorch.agents.failure_rules import UNCLASSIFIED
from agentorch.agents.opencode.events import EVIDENCE_CHARS, NAME, Transcript
from agentorch.core.job import Outcome
from agentorch.core.process_end import Exit, Line
from agentorch.core.states import OutcomeClass
from agentorch.core.text import one_line


def outcome(exit_: Exit, lines: Iterable[Line]) -> Outcome:
    """Return what the run came to: how it ended first, then what it printed."""
    transcript = Transcript()
    for line in lines:
        transcript.line(line)
    ended = outcome_of_exit(exit_, NAME) or decide(exit_, transcript)
    return replace(
        ended,
        report=transcript.report,
        metrics=transcript.metrics(),
        session_id=transcript.session_id,
        files=tuple(transcript.files),
    )


def decide(exit_: Exit, transcript: Transcript) -> Outcome:
    """Return the verdict on a run that ended by itself."""
    if transcript.errors or transcript.denied:
        return _failure(exit_, transcript)
    if not left_well(exit_):
        return (
            _failure(exit_, transcript)
            if transcript.reason != "stop"
            else _contradicts(exit_, transcript)
        )
    if transcript.reason != "stop":
        return _unfinished_run(exit_, transcript)
    if not transcript.report and not transcript.tool_calls:
        code = "malformed_output" if transcript.broken else "no_result"
        return _unreadable(exit_, code, "ended without an answer")
    return Outcome(OutcomeClass.SUCCESS, transcript.first_line or "done, without a word at the end")


def _failure(exit_: Exit, transcript: Transcript) -> Outcome:
    """Return a failure of which the patterns know the class."""
    evidence = [one_line(line, EVIDENCE_CHARS) for line in transcript.evidence()]
    words = (transcript.errors or transcript.denied or evidence or [f"exit code {exit_.code}"])[0]
    return Outcome(
        OutcomeClass.AGENT_ERROR,
        one_line(f"{NAME}: {words}"),
        error=UNCLASSIFIED,
        details={**details(exit_), "evidence": evidence},
    )


def _contradicts(exit_: Exit, transcript: Transcript) -> Outcome:
    words = f"{NAME}: exit code {exit_.code} after a finished answer: {transcript.first_line}"
    kind = OutcomeClass.AGENT_ERROR
    return Outcome(kind, one_line(words), error="agent_exit_nonzero", details=details(exit_))


def _unfinished_run(exit_: Exit, transcript: Transcript) -> Outcome:
    """Return the failure of a run that left well, but whose last step did not end as a last one
    does.
    """
    if transcript.broken and transcript.session_id is None:  # every event has it
        return _unreadable(exit_, "malformed_output", "printed no events")
    if transcript.ends_broken or transcript.reason == "length":
        return _unreadable(exit_, "truncated_output", "its answer is cut")
    if transcript.broken:
        return _unreadable(exit_, "malformed_output", "printed what is no event")
    if transcript.reason in ("", "tool-calls", "unknown"):
        return _unreadable(exit_, "no_result", "ended before its model was done")
    return _failure(exit_, transcript)


def _unreadable(exit_: Exit, code: str, words: str) -> Outcome:
    kind = OutcomeClass.PARSE_ERROR
    return Outcome(kind, f"{NAME}: {words}", error=code, details=details(exit_))
