"""The journal's entries, to the byte; and a journald that does not read."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentorch.attempt.journal_lines import BURST, MOST_CHARS, RATE_PER_S, AgentLines, Bucket
from agentorch.commands.logs import journal_argv
from agentorch.config.settings import load
from agentorch.core.attempt import Attempt
from agentorch.core.job import Job, Step
from agentorch.core.process_end import Line
from agentorch.redaction.redactor import Redactor
from agentorch.systemd import journal
from agentorch.systemd.journal import MOST_FIELD_BYTES, MOST_MESSAGE_BYTES, Journal, Journald
from agentorch.systemd.message_ids import Message

CATALOGS = Path(__file__).parents[3] / "units"
SECRET = "ghp_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5"
SETTINGS = load({"AGENTORCH_STATE_DIR": "/nowhere", "AGENTORCH_CONFIG_DIR": "/nowhere"})


def parsed(content: bytes) -> dict[str, str]:
    """An entry as journald reads it (JOURNAL_NATIVE_PROTOCOL)."""
    found: dict[str, str] = {}
    while content:
        line, content = content.split(b"\n", 1)
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(content[:8], "little")
            value, content = content[8 : 8 + size], content[8 + size :]
            assert content[:1] == b"\n"
            content = content[1:]
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name)
        assert name.decode() not in found
        found[name.decode()] = value.decode()
    return found


class Listener:
    """A journald that reads when it is asked to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(0)
        self.journald = Journald(str(path))

    def entries(self) -> Iterator[dict[str, str]]:
        """What has come."""
        while True:
            try:
                content, files, _, _ = socket.recv_fds(self.socket, 1 << 20, 1)
            except BlockingIOError:
                return
            if files:
                with open(files[0], "rb") as file:
                    content = os.pread(file.fileno(), 1 << 24, 0)
            yield parsed(content)

    def journal(self) -> Journal:
        return Journal("agentorch-test", SETTINGS, self.journald)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(tmp_path / "socket")
    yield made
    made.journald.close()
    made.socket.close()


def attempt() -> Attempt:
    step = Step("01_plan", "claude", "planner", "do it")
    now = datetime(2026, 1, 2, tzinfo=UTC)
    job = Job("job00001", "", now, "a goal", (step,), project_id="shop")
    return Attempt(job, step, 2, 2)


# ---- entries ----------------------------------------------------------------------------------


def test_an_entry_carries_its_fields() -> None:
    fields = {"job": "job00001", "step": "01_plan", "attempt": 1}
    found = parsed(journal.entry("agentorch-runner", 6, "started", Message.STARTED, fields))
    assert found == {
        "MESSAGE": "job00001/01_plan: started",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "agentorch-runner",
        "MESSAGE_ID": Message.STARTED,
        "AGENTORCH_JOB": "job00001",
        "AGENTORCH_STEP": "01_plan",
        "AGENTORCH_ATTEMPT": "1",
    }


def test_the_story_stands_out_among_what_agents_print() -> None:
    assert journal.priority("INFO", Message.STARTED) == 5
    assert journal.priority("INFO", Message.OUTPUT) == 6
    assert journal.priority("INFO", None) == 6
    assert journal.priority("ERROR", Message.WAITING) == 3


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text(), max_size=5))
def test_nothing_in_a_text_or_a_name_makes_another_field(text: str, fields: dict[str, str]) -> None:
    found = parsed(journal.entry("p", 6, text, None, fields))
    ours = {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"}
    assert found.keys() - ours == {journal.field_name(name) for name in fields}
    assert found["PRIORITY"] == "6"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nPRIORITY=0\n", "a\nPRIORITY=0\n"),
        ("MESSAGE_ID\n\x05\0\0\0\0\0\0\0abcde", "MESSAGE_ID\nabcde"),
        ("<0>urgent", "<0>urgent"),
        ("\x1b[31mred\x1b[0m\0 \x9b1m\udcff", "red ?"),
        ("\u202etxt", "txt"),
    ],
)
def test_a_text_stays_text(text: str, shown: str) -> None:
    assert parsed(journal.entry("p", 6, text, None, {}))["MESSAGE"] == shown


def test_what_is_too_long_is_cut_and_says_so() -> None:
    fields = {f"field{number}": "é" * MOST_FIELD_BYTES for number in range(2000)}
    found = parsed(journal.entry("p", 6, "é" * MOST_MESSAGE_BYTES, None, fields))
    assert len(found) <= 1024 / 2
    assert found["MESSAGE"].endswith("é…")
    assert len(found["MESSAGE"].encode()) <= MOST_MESSAGE_BYTES
    assert len(found["AGENTORCH_FIELD0"].encode()) <= MOST_FIELD_BYTES


def test_a_name_becomes_one_that_journald_takes() -> None:
    assert journal.field_name("first ms=é\n") == "AGENTORCH_FIRST_MS___"
    assert len(journal.field_name("x" * 100)) == 64


# ---- a line elsewhere -------------------------------------------------------------------------


def test_a_line_of_text_is_one_line() -> None:
    fields = {"job": "j", "step": "s", "agent": "claude\n<0>"}
    assert journal.as_text("p", "a\n<0>b\x1b[m", fields) == "p: j/s: a; <0>b (agent=claude; <0>)"


def test_a_json_object_a_line_has_the_event_and_the_fields() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    fields = {"job": "j", "message": "mine", "cost": 1.5}
    line = journal.as_json("p", "INFO", "started\n", Message.STARTED, fields, now)
    assert "\n" not in line
    assert json.loads(line) == {
        "job": "j",
        "cost": 1.5,
        "time": "2026-01-02T03:04:05.000+00:00",
        "level": "INFO",
        "program": "p",
        "message": "started\n",
        "event": "started",
    }


SAYS = """
from agentorch.systemd.journal import Journal
from agentorch.systemd.message_ids import Message
from agentorch.config.settings import load
journal = Journal("p", load())
journal.debug("quiet")
journal.info("text", Message.STARTED, job="j", project=None)
"""


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "p: j: text\n"),
        ({"JOURNAL_STREAM": "1:2"}, "p: j: text\n"),
        ({"LOG_LEVEL": "WARNING"}, ""),
    ],
)
def test_elsewhere_a_line_goes_to_stderr(
    tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    base = {"AGENTORCH_STATE_DIR": str(tmp_path), "AGENTORCH_CONFIG_DIR": str(tmp_path)}
    argv = [sys.executable, "-c", SAYS]
    assert subprocess.run(argv, env=base | variables, stderr=-1, check=True).stderr.decode() == said


def test_nobody_listening_stops_nothing(tmp_path: Path) -> None:
    base = {"AGENTORCH_STATE_DIR": str(tmp_path), "AGENTORCH_CONFIG_DIR": str(tmp_path)}
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as closed:
        argv = [sys.executable, "-c", f"{SAYS}\nprint('done')"]
        ran = subprocess.run(argv, env=base, stdout=-1, stderr=closed, check=False)
    assert ran.stdout == b"done\n"


# ---- journald ---------------------------------------------------------------------------------


def test_what_a_stopped_journald_misses_is_told_when_it_is_back(listener: Listener) -> None:
    said = listener.journal()
    for number in range(2000):
        said.info(f"line {number}", job="j")
    missed = said.dropped_entries
    taken = list(listener.entries())
    assert missed
    assert [found["MESSAGE"] for found in taken] == [
        f"j: line {number}" for number in range(2000 - missed)
    ]
    said.info("back", job="j", other="o")
    gap, back = listener.entries()
    assert gap["MESSAGE"] == f"j: {missed} entries are missing here: journald did not take them"
    assert (gap["AGENTORCH_DROPPED"], gap["MESSAGE_ID"]) == (str(missed), Message.DROPPED)
    assert (gap["PRIORITY"], "AGENTORCH_OTHER" in gap) == ("4", False)
    assert back["MESSAGE"] == "j: back"
    assert said.dropped_entries == 0


def test_a_journald_that_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    with closing(Journal("p", SETTINGS, Journald(str(tmp_path / "none")))) as said:
        said.info("one")
        said.error("two")
        assert said.dropped_entries == 2


def test_an_entry_that_no_datagram_holds_arrives_whole(listener: Listener) -> None:
    fields: dict[str, Any] = {f"field{n}": "x" * MOST_FIELD_BYTES for n in range(100)}
    said = listener.journal()
    said.info("y" * MOST_MESSAGE_BYTES, **fields)
    (found,) = listener.entries()
    assert said.dropped_entries == 0
    assert len(found["AGENTORCH_FIELD99"]) == MOST_FIELD_BYTES
    assert len(found["MESSAGE"]) == MOST_MESSAGE_BYTES


# ---- what agents print ------------------------------------------------------------------------


def test_a_line_carries_whose_it_is_and_no_secret(listener: Listener) -> None:
    lines = AgentLines(listener.journal(), attempt(), Redactor())
    lines.line(Line("stdout", f"my key is {SECRET}\x1b[31m"))
    lines.line(Line("stderr", "x" * 5000, cut=True))
    lines.close()
    first, second = listener.entries()
    assert first == {
        "MESSAGE": "job00001/01_plan: claude: my key is [redacted:github]",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "agentorch-test",
        "MESSAGE_ID": Message.OUTPUT,
        "AGENTORCH_JOB": "job00001",
        "AGENTORCH_STEP": "01_plan",
        "AGENTORCH_ATTEMPT": "2",
        "AGENTORCH_AGENT": "claude",
        "AGENTORCH_PROJECT": "shop",
        "AGENTORCH_STREAM": "stdout",
    }
    text = f"{'x' * MOST_CHARS} [line cut]"
    assert second["MESSAGE"] == f"job00001/01_plan: claude (stderr): {text}"
    assert lines.missing == 0


def test_of_a_flood_runs_of_lines_are_there_and_the_rest_is_counted(listener: Listener) -> None:
    clock = iter(place / 10_000 for place in range(100_000))
    lines = AgentLines(listener.journal(), attempt(), Redactor(), lambda: next(clock))
    found: list[dict[str, str]] = []
    for number in range(50_000):
        lines.line(Line("stdout", f"{number}"))
        found += listener.entries()
    lines.close()
    found += listener.entries()
    shown = [one for one in found if one["MESSAGE_ID"] == Message.OUTPUT]
    gaps = [one for one in found if one["MESSAGE_ID"] == Message.LEFT_OUT]
    left_out = sum(int(gap["AGENTORCH_LINES"]) for gap in gaps)
    assert len(shown) + left_out == 50_000
    assert left_out == lines.missing
    assert 0.8 * (BURST + 5 * RATE_PER_S) < len(shown) <= BURST + 5 * RATE_PER_S
    assert len(gaps) <= 6
    assert gaps[-1] is found[-1]
    assert "lines are left out here" in gaps[0]["MESSAGE"]


def test_a_private_key_that_begins_in_a_gap_is_not_shown_after_it(listener: Listener) -> None:
    now = [0.0]
    lines = AgentLines(listener.journal(), attempt(), Redactor(), lambda: now[0])
    for number in range(BURST):
        lines.line(Line("stdout", str(number)))
        list(listener.entries())
    assert lines.missing
    body = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5" * 2
    lines.line(Line("stdout", "-----BEGIN RSA PRIVATE KEY-----"))
    lines.line(Line("stdout", body[:64]))
    now[0] = 100.0
    lines.line(Line("stdout", body[3:67]))
    gap, shown = listener.entries()
    assert gap["AGENTORCH_LINES"] == str(lines.missing)
    assert shown["MESSAGE"].endswith("claude: [redacted:private-key]")


def test_a_step_that_journald_does_not_hear_knows_how_much(listener: Listener) -> None:
    lines = AgentLines(listener.journal(), attempt(), Redactor(), lambda: 0.0)
    for number in range(100_000):
        lines.line(Line("stdout", str(number)))
    lines.close()
    assert lines.missing == 100_000 - len(list(listener.entries()))


def test_where_no_journal_is_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    lines = AgentLines(Journal("p", SETTINGS), attempt(), Redactor())
    lines.line(Line("stdout", "hello"))
    lines.close()
    assert (capfd.readouterr().err, lines.missing) == ("", 0)


@given(st.lists(st.tuples(st.floats(1, 3000), st.floats(0, 2)), max_size=200))
def test_a_bucket_passes_no_more_than_its_rate(taken: list[tuple[float, float]]) -> None:
    bucket, now, passed = Bucket(200, 2000, 2000, 0), 0.0, 0.0
    for cost, wait in taken:
        now += wait
        bucket = bucket.take(cost, now)
        if now >= bucket.closed_until_s:
            passed += cost
        assert passed <= 2000 + 200 * now + 3000
        assert bucket.closed_until_s <= now + 2000 / 200 + 3000 / 200


# ---- agentorch-logs --journal -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "step_id", "argv"),
    [
        (["a"], None, "journalctl AGENTORCH_JOB=a"),
        (["a", "b"], "s", "journalctl AGENTORCH_JOB=a AGENTORCH_JOB=b AGENTORCH_STEP=s"),
    ],
)
def test_journalctl_is_asked_for_the_jobs(jobs: list[str], step_id: str | None, argv: str) -> None:
    assert " ".join(journal_argv(jobs, step_id)) == argv


# ---- the catalog ------------------------------------------------------------------------------


def catalog(path: Path) -> dict[str, str]:
    """The entries of a catalog, by their ids."""
    found = re.split(r"(?m)^-- ([0-9a-f]{32})$", path.read_text("utf-8"))
    return dict(zip(found[1::2], found[2::2], strict=True))


@pytest.mark.parametrize("path", sorted(CATALOGS.glob("*.catalog")), ids=lambda path: path.name)
def test_every_event_is_explained_and_no_other(path: Path) -> None:
    entries = catalog(path)
    assert entries.keys() == {message.value for message in Message}
    for text in entries.values():
        head, _, body = text.strip().partition("\n\n")
        heads = dict(line.split(": ", 1) for line in head.splitlines())
        assert {"Subject", "Defined-By", "Support"} <= heads.keys()
        assert heads["Defined-By"] == "agentorch"
        assert len(body) > 80
        assert not re.search(r"@(?!AGENTORCH_[A-Z_]+@|MESSAGE@)[A-Z_]+@", text)


def test_every_event_is_told_by_somebody() -> None:
    sources = CATALOGS.parent / "lib/agentorch"
    code = "".join(path.read_text("utf-8") for path in sources.rglob("*.py"))
    untold = {one.name for one in Message if f"Message.{one.name}" not in code}
    assert untold <= {"ANNOUNCED", "UNDELIVERED"}  # of callbacks
