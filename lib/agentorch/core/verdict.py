"""The fixed last block of an answer: a reviewer's verdict, or a question to a person.

    VERDICT: approve                    QUESTION: Which of the two formats is the right one?
    REASONS:                            - the old one is in docs/format.md
    - one reason a line

Only the last such line of an answer counts, and with what belongs to it, it must be the end of the
answer: what is quoted further up, or followed by other text, is no verdict. Bold marks, a heading's
marks, and a code block around it do no harm. What else an agent writes is none of our business.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from agentorch.core.job import Outcome, Verdict
from agentorch.core.roles import reviews
from agentorch.core.states import OutcomeClass
from agentorch.core.text import one_line, printable

# A block that is longer is none; nothing further up is looked at, however long an answer is.
MAX_BLOCK_CHARS = 64 * 1024
MAX_REASONS = 20
MAX_REASON_CHARS = 500
MAX_QUESTION_CHARS = 2000

APPROVE, CHANGES = "approve", "request changes"
_WORDS = {
    "approve": True,
    "approved": True,
    "request changes": False,
    "requests changes": False,
    "changes requested": False,
}
_MARKS = r"[*_`]*"
# Never indented: that is how a line of a reason goes on.
_LABEL = re.compile(rf"(?:#{{1,6}} )?{_MARKS}([A-Za-z]+){_MARKS}:{_MARKS}[ \t]*(.*)")
_BULLET = re.compile(r"(?:[-*+•]|\d{1,3}[.)])(?:[ \t]+(.*)|$)")
_FENCE = re.compile(r" {0,3}(?:`{3,}|~{3,})[ \t]*\w*[ \t]*")


@dataclass(frozen=True)
class Block:
    """A labelled line and the lines after it, up to the end of the answer."""

    value: str
    rest: tuple[str, ...]


def verdict_request() -> str:
    """Return what a reviewer is asked for, whatever its system prompt says."""
    return (
        "End the answer with your verdict, as the very last thing, in exactly this form: a line "
        f"`VERDICT: {APPROVE}` or a line `VERDICT: {CHANGES}`, then a line `REASONS:`, then one "
        "line for each reason, short, beginning with `- `. For example:\n\n"
        f"VERDICT: {CHANGES}\n"
        "REASONS:\n"
        "- src/parser.c: an empty line ends the loop; it should be skipped\n"
    )


# ---- what an answer says ----------------------------------------------------------------------


def parse(text: str) -> Verdict | None:
    """Return the verdict that an answer ends with; None where it ends with none."""
    block = last_block(text, "VERDICT", any_case=True)
    if block is None:
        return None
    approved = _WORDS.get(_word(block.value))
    reasons = _reasons(block.rest)
    return None if approved is None or reasons is None else Verdict(approved, reasons)


def question(text: str) -> str | None:
    """Return the question that an answer ends with; None where it ends with none."""
    block = last_block(text, "QUESTION")
    if block is None:
        return None
    if any(_is_apart(before, line) for before, line in pairwise(("QUESTION", *block.rest))):
        return None
    asked = "\n".join((block.value, *block.rest)).strip().strip("*").strip()
    return asked[:MAX_QUESTION_CHARS].rstrip() or None


def last_block(text: str, label: str, *, any_case: bool = False) -> Block | None:
    """Return the last line with this label, and what is after it; no line where there is no
    label.
    """
    tail = printable(text[-MAX_BLOCK_CHARS:])
    lines = _without_end([line.rstrip() for line in tail.split("\n")])
    for place in range(len(lines) - 1, -1, -1):
        match = _LABEL.fullmatch(lines[place])
        if match and label == (match[1].upper() if any_case else match[1]):
            # the line may be the rest of one that is longer than what is looked at
            whole = place > 0 or len(text) <= MAX_BLOCK_CHARS
            return Block(match[2], tuple(lines[place + 1 :])) if whole else None
    return None


def _without_end(lines: list[str]) -> list[str]:
    """Without empty lines at the end, and without the code block's end before them."""
    end = len(lines)
    while end and not lines[end - 1]:
        end -= 1
    if end and _FENCE.fullmatch(lines[end - 1]):
        end -= 1
        while end and not lines[end - 1]:
            end -= 1
    return lines[:end]


def _reasons(lines: Sequence[str]) -> tuple[str, ...] | None:
    """Return the reasons of a block; None where other text comes after the verdict."""
    filled = [(before, line) for before, line in pairwise(("VERDICT", *lines)) if line]
    if not filled:
        return ()
    label = _LABEL.fullmatch(filled[0][1])
    if label is not None and label[1].upper() == "REASONS":
        found, filled = [label[2]], filled[1:]
    elif is_bullet(filled[0][1]):
        found = []
    else:
        return None
    for before, line in filled:
        bullet = _BULLET.fullmatch(line)
        if bullet:
            found.append(bullet[1] or "")
        elif _is_apart(before, line):
            return None
        else:
            found[-1] = f"{found[-1]} {line.strip()}"
    return tuple(_display_reasons(found))


def _display_reasons(reasons: Sequence[str]) -> list[str]:
    told = [one_line(reason, MAX_REASON_CHARS) for reason in reasons]
    return [reason for reason in told if reason][:MAX_REASONS]


def _is_apart(before: str, line: str) -> bool:
    """Return whether a line begins something else: after an empty line, no list and not
    indented.
    """
    return bool(line) and not before and not line.startswith((" ", "\t")) and not is_bullet(line)


def is_bullet(line: str) -> bool:
    """Return whether a line is an item of a list."""
    return _BULLET.fullmatch(line) is not None


def _word(value: str) -> str:
    """Return a verdict's word without the marks around it, a dot at its end, and odd spaces in
    it.
    """
    bare = value.strip(" \t*_`").rstrip(".!")
    return " ".join(re.split(r"[\s_-]+", bare.lower()))


# ---- what it comes to -------------------------------------------------------------------------


def apply_verdict(outcome: Outcome, role: str) -> Outcome:
    """Return what an agent's success comes to after its own last words; every other end as it
    is.
    """
    if outcome.kind is not OutcomeClass.SUCCESS:
        return outcome
    asked = question(outcome.report)
    if asked is not None:
        words = one_line(f"asks: {asked}")
        return replace(outcome, kind=OutcomeClass.NEEDS_HUMAN, summary=words, question=asked)
    return _apply_review(outcome) if reviews(role) else outcome


def _apply_review(outcome: Outcome) -> Outcome:
    verdict = parse(outcome.report)
    if verdict is None:
        return replace(outcome, summary=one_line(f"no verdict: {outcome.summary}"))
    reasons = "; ".join(verdict.reasons)
    if verdict.approved:
        words = one_line(f"approved: {reasons}" if reasons else "approved")
        return replace(outcome, summary=words, verdict=verdict)
    return replace(
        outcome,
        kind=OutcomeClass.CHANGES,
        summary=one_line(f"changes requested: {reasons}" if reasons else "changes requested"),
        error="changes_requested",
        details={**outcome.details, "reasons": list(verdict.reasons)},
        verdict=verdict,
    )
