"""logs.txt: what is followed at once, what is kept of the end, and no secret in either."""

from __future__ import annotations

from pathlib import Path

from agentorch.attempt.log import Logbook, redact_ends
from agentorch.core.process_end import Line
from agentorch.process.output import Kept
from agentorch.redaction.redactor import Redactor

SECRET = "ghp_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5"


def test_lines_are_there_as_soon_as_they_come(tmp_path: Path) -> None:
    logs = Logbook(tmp_path / "logs.txt", Redactor(), 1000)
    logs.line(Line("stdout", "one"))
    logs.line(Line("stderr", f"two {SECRET}", cut=True))
    assert (tmp_path / "logs.txt").read_text() == (
        "stdout: one\nstderr: two [redacted:github] [line cut]\n"
    )
    assert logs.settle() == {"github": 1}
    logs.close()


def test_of_what_is_too_much_both_ends_are_kept_and_redacted(tmp_path: Path) -> None:
    logs = Logbook(tmp_path / "logs.txt", Redactor(), 2000)
    for number in range(1000):
        logs.line(Line("stdout", f"line {number}"))
    logs.line(Line("stdout", f"key {SECRET}"))
    logs.line(Line("stdout", "the end"))
    assert logs.settle() == {"github": 1}
    logs.note("done")
    logs.close()
    text = (tmp_path / "logs.txt").read_text()
    assert text.startswith("stdout: line 0\n")
    assert "characters left out …]\nstdout: line 9" in text
    assert text.endswith("stdout: key [redacted:github]\nstdout: the end\nagentorch: done\n")
    assert len(text) < 2200


def test_a_secret_that_a_cut_goes_through_is_not_half_there(tmp_path: Path) -> None:
    for length in range(900, 1100):
        logs = Logbook(tmp_path / "logs.txt", Redactor(), 2000)
        logs.line(Line("stdout", "x" * 1000))
        logs.line(Line("stdout", SECRET + "y" * length))
        logs.settle()
        logs.close()
        assert SECRET[-8:] not in (tmp_path / "logs.txt").read_text()


def test_a_secret_that_escapes_stand_in_is_found(tmp_path: Path) -> None:
    coloured = f"k={SECRET[:6]}\x1b[31m\x1b[K{SECRET[6:20]}\x1b[m{SECRET[20:]}"
    logs = Logbook(tmp_path / "logs.txt", Redactor(), 1000)
    logs.line(Line("stdout", coloured))
    assert logs.settle() == {"github": 1}
    logs.close()
    assert (tmp_path / "logs.txt").read_text() == "stdout: k=[redacted:github]\n"
    assert redact_ends(Kept(coloured), Redactor()) == "k=[redacted:github]"
    assert redact_ends(Kept("\x1b[1mplain"), Redactor()) == "\x1b[1mplain"
