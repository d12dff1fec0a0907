"""Entries of the journal as lines and as JSON, and following jobs to their ends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from agentorch.systemd import reader
from agentorch.systemd.message_ids import Message

WHEN = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
BOOT = UUID("0123456789abcdef0123456789abcdef")


class Monotonic(NamedTuple):
    """The form that systemd-python gives to a monotonic time."""

    timestamp: timedelta
    bootid: UUID


def entry(**fields: Any) -> dict[str, Any]:
    return {"__REALTIME_TIMESTAMP": WHEN, "SYSLOG_IDENTIFIER": "agentorch-runner", **fields}


def test_a_line_has_time_program_and_text_and_no_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    line = reader.entry_line(entry(MESSAGE="done\x1b[2J\nreally"))
    assert line.endswith("agentorch-runner: done [2J really") or "\x1b" not in line
    assert "\n" not in line


def test_json_has_every_field_as_text() -> None:
    found = json.loads(
        reader.entry_json(
            entry(
                MESSAGE=b"\xffodd",
                MESSAGE_ID=UUID(Message.FINISHED),
                PRIORITY=6,
                AGENTORCH_STEP=["one", "two"],
                __MONOTONIC_TIMESTAMP=Monotonic(timedelta(seconds=2), BOOT),
            )
        )
    )
    assert found == {
        "MESSAGE": "\ufffdodd",
        "MESSAGE_ID": Message.FINISHED,
        "PRIORITY": "6",
        "AGENTORCH_STEP": ["one", "two"],
        "SYSLOG_IDENTIFIER": "agentorch-runner",
        "__REALTIME_TIMESTAMP": str(round(WHEN.timestamp() * 1_000_000)),
        "__MONOTONIC_TIMESTAMP": "2000000",
    }


class Journal(reader.JournalReader):
    """A journal of batches: each wait brings the next one."""

    def __init__(self, *batches: list[dict[str, Any]]) -> None:
        self.batches = list(batches)
        self.now: list[dict[str, Any]] = []
        self.waits: list[float | None] = []

    def __iter__(self) -> Iterator[reader.Entry]:
        while self.now:
            yield self.now.pop(0)

    def wait(self, *others: reader.Pollable, timeout_s: float | None = None) -> None:
        self.waits.append(timeout_s)
        self.now = self.batches.pop(0) if self.batches else []


def followed(journal: Journal, ends: list[bool], grace_s: float = 2.0) -> list[str]:
    """The texts that are shown of job j; `ends` are the answers to whether it has ended."""
    shown: list[str] = []
    readable, _ = os.pipe()

    class Events:
        def fileno(self) -> int:
            return readable

    def show(one: reader.Entry) -> None:
        shown.append(one["MESSAGE"])

    def has_ended() -> bool:
        return ends.pop(0) if len(ends) > 1 else ends[0]

    reader.follow(journal, show, has_ended, ["j"], Events(), grace_s)
    return shown


def finished(text: str = "success: done") -> dict[str, Any]:
    return entry(MESSAGE=text, AGENTORCH_JOB="j", MESSAGE_ID=UUID(Message.FINISHED))


def test_it_ends_with_the_last_entry_of_its_job() -> None:
    journal = Journal([entry(MESSAGE="one")], [entry(MESSAGE="two"), finished("three")])
    assert followed(journal, [False, False, True]) == ["one", "two", "three"]


def test_the_last_entry_may_come_after_the_queue_says_so() -> None:
    journal = Journal([entry(MESSAGE="one")], [finished("two")])
    assert followed(journal, [False, True]) == ["one", "two"]
    assert journal.waits[-1] is not None


def test_a_job_that_ended_long_ago_is_shown_and_not_waited_for() -> None:
    journal = Journal()
    journal.now = [finished()]
    assert followed(journal, [True]) == ["success: done"]
    assert journal.waits == []


def test_a_last_entry_that_never_comes_is_waited_for_no_longer_than_the_grace() -> None:
    assert followed(Journal(), [True], grace_s=0.01) == []


def test_without_a_journal_it_is_empty() -> None:
    assert list(reader.JournalReader(["no-such-job"])) == []
    assert reader.JournalReader(["no-such-job"]).last_entries(3) == []
