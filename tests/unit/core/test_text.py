"""Text from agents made safe and fitting."""

from __future__ import annotations

from agentorch.core.text import demote_headings


def test_headings_are_lowered_but_for_code() -> None:
    text = "# One\n\n```sh\n# comment\n```\n## Two\n#no heading\n"
    assert demote_headings(text, 2) == "### One\n\n```sh\n# comment\n```\n#### Two\n#no heading\n"
