"""Plain English: docstrings, names, commit subjects."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lint import subject, wording

ROOT = Path(__file__).parents[2]
# The commits after this one have subjects of the form.
SINCE = "e8cef30da53ffb8e17ac863782be33527cb466b5"


@pytest.mark.parametrize(
    ("name", "is_bad"),
    [
        ("asked", True),
        ("_told", True),
        ("told_by", True),
        ("of_job", True),
        ("until", True),
        ("put_off", True),
        ("allowed_hosts", False),
        ("claim_job", False),
        ("is_settled", False),
        ("from_document", False),
        ("need", False),
        ("__enter__", False),
    ],
)
def test_a_bare_participle_or_preposition_is_no_name(name: str, *, is_bad: bool) -> None:
    assert wording.is_badly_named(name) is is_bad


def test_a_headless_clause_is_found(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('"""What a job is."""\n\ndef claim() -> None:\n    """Nobody asks."""\n')
    assert [line.partition(": ")[2] for line in wording.findings(path)] == [
        "docstring: What a job is.",
        "docstring: Nobody asks.",
    ]


def test_the_library_is_plain_english() -> None:
    found = [one for path in sorted((ROOT / "lib").rglob("*.py")) for one in wording.findings(path)]
    assert found == []


@pytest.mark.parametrize(
    "text",
    ["Add a test", "queue: ", "queue: add a test.", "Queue: add a test", f"queue: {'x' * 70}"],
)
def test_a_bad_subject_is_refused(text: str) -> None:
    assert subject.problem(text) is not None


def test_subjects_of_commits() -> None:
    argv = ["git", "log", "--no-merges", "--format=%s", f"{SINCE}..HEAD"]
    log = subprocess.run(argv, cwd=ROOT, text=True, capture_output=True, check=False)
    if log.returncode != 0:
        pytest.skip("no history here: not a git checkout, or a shallow one")
    assert [wrong for line in log.stdout.splitlines() if (wrong := subject.problem(line))] == []
