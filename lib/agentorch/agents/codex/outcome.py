"""The outcome of a run of Codex: from its exit, and what it printed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agentorch.agents.codex.events import Transcript
from agentorch.agents.exit_outcome import details, left_well, outcome_of_exit
from agentorch.agents.failure_rules import UNCLASSIFIED
from agentorch.core.job import Outcome
from agentorch.core.process_end import Exit, Line
from agentorch.core.states import OutcomeClass
from agentorch.core.text import one_line


def outcome(exit_: Exit, lines: Iterable[Line]) -> Outcome:
    """Return what the run came to: how it ended first, then what it printed."""
    transcript = Transcript()
    for line in lines:
        transcript.line(line)
    decided = outcome_of_exit(exit_, "codex") or _decide(exit_, transcript)
    return replace(
        decided,
        report=transcript.text,
        metrics=transcript.metrics,
        session_id=transcript.session_id,
        files=tuple(transcript.files),
    )


def _decide(exit_: Exit, transcript: Transcript) -> Outcome:
    if transcript.failure or (not left_well(exit_) and not transcript.completed):
        return _unclassified_failure(exit_, transcript)
    if not left_well(exit_):
        words = one_line(f"codex: exit code {exit_.code} after it had said that it was done")
        return _failure(OutcomeClass.AGENT_ERROR, "agent_exit_nonzero", words, exit_, transcript)
    if not transcript.completed:
        return _failure(OutcomeClass.PARSE_ERROR, *transcript.incomplete(), exit_, transcript)
    if transcript.commands and transcript.commands == transcript.without_sandbox:
        words = "codex: none of its commands ran: its own sandbox can't be set up here"
        return _failure(OutcomeClass.INFRA, "sandbox_broken", words, exit_, transcript)
    if not transcript.text.strip() and not transcript.files:
        words = "codex ended without an answer"
        return _failure(OutcomeClass.PARSE_ERROR, "no_result", words, exit_, transcript)
    return Outcome(OutcomeClass.SUCCESS, one_line(transcript.text) or "codex gave no final message")


def _unclassified_failure(exit_: Exit, transcript: Transcript) -> Outcome:
    silent = f"exit code {exit_.code}, and it did not say why"
    why = (
        transcript.failure
        or transcript.error
        or (transcript.last[-1] if transcript.last else silent)
    )
    words = one_line(f"codex: {why}")
    return _failure(OutcomeClass.AGENT_ERROR, UNCLASSIFIED, words, exit_, transcript)


def _failure(
    kind: OutcomeClass, error: str, words: str, exit_: Exit, transcript: Transcript
) -> Outcome:
    told = {**details(exit_), "evidence": transcript.evidence()}
    return Outcome(kind, words, error=error, details=told)
