"""The fixed last block of an answer: what counts as one, what does not, and what it comes to."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.core import verdict
from agentorch.core.job import Outcome, Verdict
from agentorch.core.states import OutcomeClass
from agentorch.core.text import SUMMARY_CHARS

APPROVED = Verdict(approved=True, reasons=("it does what was asked",))
CHANGES = Verdict(approved=False, reasons=("a.py: no test", "b.py: wrong"))


def success(report: str, kind: OutcomeClass = OutcomeClass.SUCCESS) -> Outcome:
    return Outcome(kind, "looked at it", report=report)


@pytest.mark.parametrize(
    "text",
    [
        "VERDICT: approve\nREASONS:\n- it does what was asked",
        "Fine.\n\nVERDICT: approve\nREASONS:\n- it does what was asked\n\n\n",
        "VERDICT: Approved.\r\nREASONS:\r\n- it does what was asked\r\n",
        "verdict: APPROVE\nreasons:\n* it does what was asked",
        "**VERDICT:** approve\n\n**REASONS:**\n\n1. it does what was asked",
        "**VERDICT: approve**\n**REASONS:**\n- it does what was asked",
        "## VERDICT: `approve`\n\n## REASONS:\n\n- it does what\n  was asked",
        "Thus:\n```text\nVERDICT: approve\nREASONS:\n- it does what was asked\n```\n",
        "VERDICT: approve\n- it does what was asked",
        "VERDICT: approve\nREASONS: it does what was asked",
        "VERDICT: approve\nREASONS:\nit does what was asked",
        "VERDICT: request changes\n- x\n\nNo:\n\nVERDICT: approve\n- it does what was asked",
        "\x1b[1mVERDICT: approve\x1b[0m\nREASONS:\n- it does \x1b[31mwhat was asked",
    ],
)
def test_approved(text: str) -> None:
    assert verdict.parse(text) == APPROVED


@pytest.mark.parametrize(
    "word",
    [
        "request changes",
        "Request Changes",
        "request_changes",
        "REQUEST-CHANGES",
        "changes requested",
        "changes_requested",
        "**request changes**",
    ],
)
def test_changes(word: str) -> None:
    text = f"VERDICT: {word}\nREASONS:\n- a.py: no test\n- b.py: wrong\n"
    assert verdict.parse(text) == CHANGES


def test_no_reasons() -> None:
    assert verdict.parse("VERDICT: approve") == Verdict(approved=True)
    assert verdict.parse("VERDICT: request changes\nREASONS:\n") == Verdict(approved=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "approve",
        "I approve.",
        "VERDICT",
        "VERDICT:",
        "VERDICT: maybe",
        "VERDICT: approve | request changes\nREASONS:\n- …",
        "VERDICT: approve, or request changes",
        "VERDICT: not approve",
        "VERDICT: approve\n\nBut then there is a.py.",
        "VERDICT: approve\nREASONS:\n- fine\n\nThat is all.",
        "VERDICT: approve\nBut wait.",
        "The plan says:\n```\nVERDICT: approve\n```\nand I don't know.",
        "> VERDICT: approve",
        "The file says VERDICT: approve",
        "VERDICT: approve\nREASONS:\n- x\n\nVERDICT: perhaps",
        "OVERDICT: approve",
        "x" * verdict.MAX_BLOCK_CHARS + "VERDICT: approve\nREASONS:\n" + "- y\n" * 40_000,
    ],
)
def test_none(text: str) -> None:
    assert verdict.parse(text) is None


def test_what_a_reason_quotes_is_no_verdict() -> None:
    text = (
        "VERDICT: request changes\nREASONS:\n- README says\n  VERDICT: approve\n- VERDICT: approve"
    )
    found = verdict.parse(text)
    assert found == Verdict(
        approved=False, reasons=("README says VERDICT: approve", "VERDICT: approve")
    )


def test_the_rest_of_a_line_that_is_too_long_is_no_label() -> None:
    text = "x" * 100 + "VERDICT: approve\nREASONS:\n" + "- y\n"
    padded = text + " " * (verdict.MAX_BLOCK_CHARS - len("VERDICT: approve\nREASONS:\n- y\n"))
    assert verdict.parse(padded) is None
    assert verdict.parse("VERDICT: approve\n") is not None


def test_the_request_itself_shows_the_form_that_is_read() -> None:
    found = verdict.parse(verdict.verdict_request())
    assert found is not None
    assert not found.approved
    assert len(found.reasons) == 1


def test_reasons_are_bounded_and_safe_to_show() -> None:
    many = "".join(f"- {n} \x1b[31m<b>{'y' * 2000}\n" for n in range(1000))
    found = verdict.parse(f"VERDICT: request changes\nREASONS:\n{many[:60_000]}")
    assert found is not None
    assert len(found.reasons) == verdict.MAX_REASONS
    assert all(len(reason) <= verdict.MAX_REASON_CHARS for reason in found.reasons)
    assert not any("\x1b" in reason or "\n" in reason for reason in found.reasons)


# ---- questions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("QUESTION: Which one?", "Which one?"),
        ("Looked.\n\nQUESTION: Which one?\n", "Which one?"),
        ("**QUESTION:** Which one?\n\n- a\n- b", "Which one?\n\n- a\n- b"),
        ("```\nQUESTION: Which one?\nThe old?\n```", "Which one?\nThe old?"),
        ("QUESTION:\nWhich one?", "Which one?"),
        ("QUESTION: First?\n\nQUESTION: Which one?", "Which one?"),
        ("QUESTION: \x1b]0;title\x07Which one?", "Which one?"),
    ],
)
def test_a_question(text: str, asked: str) -> None:
    assert verdict.question(text) == asked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "QUESTION:",
        "Which one?",
        "Question: why did it fail?",
        "QUESTION: Which one?\n\nI took the first, and went on.",
        "The script prints QUESTION: Which one?",
    ],
)
def test_no_question(text: str) -> None:
    assert verdict.question(text) is None


def test_a_question_is_bounded() -> None:
    asked = verdict.question("QUESTION: " + "why " * 10_000)
    assert asked is not None
    assert len(asked) <= verdict.MAX_QUESTION_CHARS


# ---- what it comes to -------------------------------------------------------------------------


def test_a_review_that_approves() -> None:
    outcome = verdict.apply_verdict(
        success("VERDICT: approve\nREASONS:\n- fine\n- small"), "reviewer"
    )
    assert (outcome.kind, outcome.error) == (OutcomeClass.SUCCESS, None)
    assert outcome.summary == "approved: fine; small"
    assert outcome.verdict == Verdict(approved=True, reasons=("fine", "small"))


def test_a_review_that_requests_changes() -> None:
    report = "VERDICT: request changes\nREASONS:\n- a.py: no test\n- b.py: wrong"
    outcome = verdict.apply_verdict(success(report), "Security Review")
    assert (outcome.kind, outcome.error) == (OutcomeClass.CHANGES, "changes_requested")
    assert outcome.summary == "changes requested: a.py: no test; b.py: wrong"
    assert outcome.details == {"reasons": ["a.py: no test", "b.py: wrong"]}
    assert outcome.verdict == CHANGES
    assert outcome.report == report


def test_a_review_without_a_verdict_says_so() -> None:
    outcome = verdict.apply_verdict(success("It is fine, I think."), "reviewer")
    assert (outcome.kind, outcome.verdict) == (OutcomeClass.SUCCESS, None)
    assert outcome.summary == "no verdict: looked at it"


@pytest.mark.parametrize("role", ["planner", "implementer", "reviewer", "tester"])
def test_a_question_of_any_role_needs_a_human(role: str) -> None:
    outcome = verdict.apply_verdict(success("QUESTION: Which one?"), role)
    assert (outcome.kind, outcome.question) == (OutcomeClass.NEEDS_HUMAN, "Which one?")
    assert outcome.summary == "asks: Which one?"


def test_only_a_review_has_a_verdict() -> None:
    said = success("VERDICT: request changes\nREASONS:\n- x")
    assert verdict.apply_verdict(said, "implementer") == said


@pytest.mark.parametrize("kind", [kind for kind in OutcomeClass if kind != OutcomeClass.SUCCESS])
def test_what_did_not_succeed_is_not_judged(kind: OutcomeClass) -> None:
    for report in ("VERDICT: approve", "QUESTION: why?"):
        failed = success(report, kind)
        assert verdict.apply_verdict(failed, "reviewer") == failed


# ---- anything at all --------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *("VERDICT: approve", "VERDICT: request changes", "VERDICT:", "REASONS:", "QUESTION: a?"),
        *("\n", "\n\n", "- a", "  b", "```", "text", "**", "> ", "\x1b[31m", "\x00", "\ud800", "…"),
    ]
)


@given(
    st.lists(PIECES | st.text(max_size=20), max_size=30).map("".join),
    st.sampled_from(["reviewer", "implementer"]),
)
def test_whatever_is_said_is_stored_safely(text: str, role: str) -> None:
    outcome = verdict.apply_verdict(success(text), role)
    shown = (outcome.summary, *(outcome.verdict.reasons if outcome.verdict else ()))
    for line in shown:
        assert "\n" not in line
        line.encode("utf-8")
    assert len(outcome.summary) <= SUMMARY_CHARS
    (outcome.question or "").encode("utf-8")
    # what is judged once is not judged otherwise with the same words behind a preface
    preface = verdict.apply_verdict(success(f"Preface.\n\n{text}"), role)
    assert preface.kind == outcome.kind


@given(st.sampled_from(["approve", "request changes"]), st.lists(st.text("abc :.`", min_size=1)))
def test_what_is_written_in_the_form_is_read_back(word: str, reasons: list[str]) -> None:
    lines = "".join(f"- {reason}\n" for reason in reasons)
    found = verdict.parse(f"VERDICT: {word}\nREASONS:\n{lines}")
    assert found is not None
    assert found.approved is (word == "approve")
    kept = [" ".join(reason.split()) for reason in reasons if reason.strip()]
    assert list(found.reasons) == kept[: verdict.MAX_REASONS]


@pytest.mark.parametrize(
    "unit",
    ["VERDICT: approve\n", "*", "- ", "#", "`", "\n", " ", "1", "\x1b[", "QUESTION: a\n", "a: "],
)
def test_ten_megabytes_take_no_longer_than_their_end(unit: str) -> None:
    text = unit * (10_000_000 // len(unit))
    began = time.process_time()
    verdict.apply_verdict(success(text), "reviewer")
    verdict.apply_verdict(
        success(text + "\nVERDICT: approve\nREASONS:\n" + unit * 30_000), "reviewer"
    )
    assert time.process_time() - began < 2
