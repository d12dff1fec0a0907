"""Roles, the files of their system prompts, and what those say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.config import prompt_files
from agentorch.core import roles, verdict
from agentorch.core.errors import Misconfigured

PROMPTS = sorted(prompt_files.BUILT_IN.glob("*.md"))


@pytest.mark.parametrize(
    ("role", "kind", "reads"),
    [
        ("planner", "planner", True),
        ("Senior Planner", "planner", True),
        ("reviewer", "reviewer", True),
        ("CodeReview", "reviewer", True),
        ("review of the plan", "reviewer", True),
        ("implementer", "implementer", False),
        ("Implementation", "implementer", False),
        ("plan the implementation", "planner", True),
        ("tester", "agent", False),
        ("", "agent", False),
    ],
)
def test_the_kinds_of_roles(role: str, kind: str, *, reads: bool) -> None:
    assert (roles.kind_of(role), roles.reads_only(role)) == (kind, reads)
    assert roles.reviews(role) is (kind == "reviewer")


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("reviewer", "reviewer"),
        ("Senior Reviewer", "senior-reviewer"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", ""),
        ("Prüfer", "pr-fer"),
        ("x" * 128, "x" * 64),
    ],
)
def test_a_role_as_a_file(role: str, name: str) -> None:
    assert roles.role_file(role) == name


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_name_of_a_file_leaves_its_directory(agent: str, role: str) -> None:
    for name in roles.prompt_files(agent, role):
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,130}\.md", name)


def test_the_most_special_file_comes_first() -> None:
    assert roles.prompt_files("claude", "Reviewer") == (
        "claude-reviewer.md",
        "reviewer.md",
        "claude.md",
    )
    assert roles.prompt_files("claude", "…") == ("claude.md",)


def test_a_resumed_session_is_told_what_is_gone_and_why() -> None:
    told = roles.resumed_notice(2, "was stopped\nafter 600 s\x1b[2J: time limit")
    assert "attempt 2" in told
    assert "put back to its state before the step" in told
    assert told.endswith("was stopped after 600 s: time limit\n")
    assert len(roles.resumed_notice(2, "x" * 100_000)) < 1500


# ---- system prompts ---------------------------------------------------------------------------


def test_ours_are_there_for_every_kind() -> None:
    kinds = {roles.PLANNER, roles.IMPLEMENTER, roles.REVIEWER, roles.OTHER}
    assert {path.stem for path in PROMPTS} == kinds


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_ours_are_plain_and_say_what_is_the_case(path: Path) -> None:
    text = path.read_text("utf-8")
    vendors = r"claude|anthropic|codex|openai|gpt|opencode|kimi|moonshot|expert|world-class|I am"
    assert re.findall(rf"\b(?:{vendors})\b", text, re.IGNORECASE) == []
    for fact in ("unattended", "current directory is the workspace", "network is denied"):
        assert fact in text, fact
    assert verdict.question(text) == "one question, with what has to be known to answer it"
    assert len(text) < 3000


def test_the_administrators_file_goes_before_ours(tmp_path: Path) -> None:
    ours = prompt_files.system_prompt(tmp_path / "nowhere", "codex", "Implementer")
    assert ours == (prompt_files.BUILT_IN / "implementer.md").read_text("utf-8")
    told = []
    for name in ("codex.md", "implementer.md", "codex-implementer.md"):
        (tmp_path / name).write_text(f"from {name}\n")
        told.append(prompt_files.system_prompt(tmp_path, "codex", "Implementer"))
    assert told == ["from codex.md\n", "from implementer.md\n", "from codex-implementer.md\n"]
    assert prompt_files.system_prompt(tmp_path, "claude", "tester").startswith("You work on one")


def test_no_file_of_an_administrator_loses_the_verdict(tmp_path: Path) -> None:
    (tmp_path / "reviewer.md").write_text("Be brief.\n")
    told = prompt_files.system_prompt(tmp_path, "claude", "reviewer")
    assert told == f"Be brief.\n\n{verdict.verdict_request()}"
    (tmp_path / "reviewer.md").write_text("")
    assert prompt_files.system_prompt(tmp_path, "claude", "reviewer") == verdict.verdict_request()
    (tmp_path / "planner.md").write_text("\n")
    assert prompt_files.system_prompt(tmp_path, "claude", "planner") == ""


def test_a_file_that_cannot_be_read_is_a_problem_and_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "planner.md").write_bytes(b"\xff\xfe")
    with pytest.raises(Misconfigured, match=r"planner\.md: can't be read as UTF-8"):
        prompt_files.system_prompt(tmp_path, "claude", "planner")
    (tmp_path / "claude-planner.md").mkdir()
    with pytest.raises(Misconfigured, match=r"claude-planner\.md: Is a directory"):
        prompt_files.system_prompt(tmp_path, "claude", "planner")
