"""The README, in both languages: its commands are run, what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentorch.commands import COMMANDS
from tests.docs.test_pages import DOUBTS, environment
from tests.support import console
from tests.support.manual import ROOT, pages

README = (ROOT / "README.md").read_text("utf-8")
RUSSIAN = (ROOT / "README-RU.md").read_text("utf-8")
BOTH = pytest.mark.parametrize("text", [README, RUSSIAN], ids=["README.md", "README-RU.md"])


def without_doubts(output: str) -> str:
    """Without what a runner says where the machine's filesystem may forget in a power cut."""
    lines = output.splitlines()
    return "\n".join(line for line in lines if not line.endswith(DOUBTS))


# ---- what it shows ----------------------------------------------------------------------------


@pytest.mark.needs("git", "bwrap")
def test_every_command_prints_what_is_shown(tmp_path: Path) -> None:
    shown = console.blocks(README)
    printed = console.run(shown, ROOT, environment(tmp_path))
    assert len(printed) == len(shown)
    for one, raw in zip(shown, printed, strict=True):
        output = without_doubts(raw)
        assert console.matches(one.output, output), f"$ {one.command}\n{output}"


@pytest.mark.parametrize(
    ("expected", "printed", "matching"),
    [
        ("", "", True),
        ("", "more", False),
        ("one …", "one 1.5 s", True),
        ("one …", "one\ntwo", False),
        ("a\n…\nb", "a\n1\n2\nb", True),
        ("a\n…\nb", "a\nb", True),
        ("a.c", "abc", False),
    ],
)
def test_the_comparison_can_fail(expected: str, printed: str, *, matching: bool) -> None:
    assert console.matches(expected, printed) is matching


@pytest.mark.parametrize("fence", ["```console", "```"])
def test_a_command_may_go_on_and_see_the_exit_code_of_the_one_before(
    tmp_path: Path, fence: str
) -> None:
    text = f"{fence}\n$ false ||\n>     false\n$ echo $?\n1\n```\n\n```\n# reboot\n```\n"
    shown = console.blocks(text)
    assert [one.command for one in shown] == ["false ||\n    false", "echo $?"]
    assert console.run(shown, tmp_path, environment(tmp_path)) == ["", "1"]


# ---- what it says -----------------------------------------------------------------------------


def blocks(text: str) -> list[str]:
    """Its blocks of commands, without what a comment says."""
    found = re.findall(r"^```(?:console|sh)\n.*?^```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(r" +# .*", "", block) for block in found]


def levels(text: str) -> list[str]:
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^(#+) ", outside, re.MULTILINE)


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| (agentorch\S+)", text, re.MULTILINE)


def test_both_languages_show_the_same() -> None:
    assert blocks(RUSSIAN) == blocks(README)
    assert levels(RUSSIAN) == levels(README)
    assert first_cells(RUSSIAN) == first_cells(README)


@BOTH
def test_only_commands_that_exist(text: str) -> None:
    told = set(re.findall(r"(?<![./])\bagentorch-([a-z]+)\b(?!\()", text))
    assert told <= set(COMMANDS)


@BOTH
def test_only_pages_that_exist(text: str) -> None:
    told = set(re.findall(r"agentorch[a-z.-]*\([1-8]\)", text))
    assert told <= set(pages())
    concepts = {title for title, one in pages().items() if one.section in "57"}
    assert concepts <= told


@BOTH
def test_files_that_it_names_exist(text: str) -> None:
    told = set(re.findall(r"(?:\$|`)((?:examples|tests|contracts)/[\w./-]+)", text))
    assert told
    assert [path for path in told if not (ROOT / path).exists()] == []


@BOTH
def test_only_targets_of_the_makefile(text: str) -> None:
    rules = (ROOT / "Makefile").read_text("utf-8")
    told = set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
    assert told
    assert {name for name in told if not re.search(rf"^{name}:", rules, re.MULTILINE)} == set()
