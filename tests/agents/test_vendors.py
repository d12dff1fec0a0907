"""Programs with the vendors' names that misbehave in every way known, through whole jobs.

They run as the real ones do: by the runner, in the sandbox, with the broker; only what they say is
made up. The jobs of a table run side by side, once; each of its tests looks at one of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.agents.vendors import VENDORS, Act, Vendors, living, outcome, step

pytestmark = pytest.mark.needs("bwrap")

DONE = "I did what was asked."
ESCAPES = "\x1b]0;evil\x07\x1b[2J\x9b31mred \u202eback\x00\x08 <script>alert(1)</script>"
REFUSED = {"claude": "401", "codex": "401", "opencode": "auth-openai"}
# A character of each plane, what joins and what turns, and what no text should have.
PLANES = "".join(chr((plane << 16) + 0x0E00 + plane) for plane in range(17))
UNICODE = f"z\u0301\u200d\ufeff \u05d0\u0661 \ufffe\uffff {PLANES} \U0010ffff"


@dataclass(frozen=True)
class Case:
    """What the program does, and what must come out."""

    acts: tuple[Act, ...]
    outcome: str = "success"
    error: str | None = None


CASES = {
    "a line of 100 MB": Case((["long_line", 100 << 20], ["answer"])),
    "an answer of 6 MB": Case((["long_answer", 6 << 20],)),
    "a daemon": Case((["child", "daemon"], ["answer"])),
    "a child in a session of its own": Case((["child", "session"], ["answer"])),
    "a child that ignores TERM": Case((["child", "deafened"], ["answer"])),
    "a child that holds the output": Case((["child", "holding"], ["answer"])),
    "a child that forks and forks": Case((["child", "forking"], ["answer"])),
    "exit 1 after its result": Case(
        (["answer"], ["leave", 1]), "agent_error", "agent_exit_nonzero"
    ),
    "garbage after its result": Case((["answer"], ["noise", 5000], ["raw", '{"type":"res'])),
    "its result twice": Case((["answer"], ["again", DONE])),
    "binary noise": Case((["noise", 50_000], ["noise", 50_000, 2], ["answer"])),
    "every plane": Case((["answer", UNICODE],)),
    "escapes": Case((["raw", ESCAPES + "\n"], ["raw", ESCAPES + "\n", 2], ["answer", ESCAPES])),
    "half a pair": Case((["answer", "half \ud83d a pair \udc00"],)),
    "a key": Case((["key"],), "secrets", "secrets_check_failed"),
    "an error, and exit 0": Case((["play", REFUSED, 0],), "auth", "auth_failed"),
    "cut at 64 KiB": Case((["half"],), "parse_error", "truncated_output"),
    "noise alone": Case((["noise", 5000],), "parse_error", "malformed_output"),
    "nothing": Case((), "parse_error", "no_result"),
    "nothing, and exit 1": Case((["leave", 1],), "agent_error", "unclassified"),
    "stderr alone": Case((["raw", "note: fine\n", 2],), "parse_error", "no_result"),
    "stderr alone, and exit 1": Case(
        (["raw", "odd\n", 2], ["leave", 1]), "agent_error", "unclassified"
    ),
    "killed": Case((["begin"], ["leave", -9]), "agent_error", "agent_exit_nonzero"),
}
# With RUNNER_MAX_IDLE_SEC less than what a program may take to leave.
IDLE_S = 3
QUIET = {
    "computes": Case((["begin"], ["compute", 2.2 * IDLE_S], ["answer"])),
    "writes": Case((["begin"], ["save", 2.2 * IDLE_S], ["answer"])),
    "does nothing": Case((["begin"], ["hang"]), "stalled", "stalled"),
    "does nothing, deaf": Case((["begin"], ["deaf"], ["hang"]), "stalled", "stalled"),
    "stays": Case((["answer"], ["hang"])),
    "stays, deaf": Case((["answer"], ["deaf"], ["child", "daemon"], ["hang"])),
    "stays after a long answer": Case((["long_answer", 3 << 20], ["hang"])),
}
# More than the adapters' linger_s and the grace that follows, less than the step's timeout.
STAYS_S = 50


# ---- the jobs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Played:
    """Cases that ran: where, the job of each by vendor and name, and what the runners said."""

    zoo: Vendors
    jobs: Mapping[tuple[str, str], str]
    told: str = ""

    def result(self, vendor: str, name: str) -> dict[str, Any]:
        return self.zoo.result(self.jobs[vendor, name])


def submitted(zoo: Vendors, cases: Mapping[str, Case]) -> Played:
    """Every case, to be run by every vendor's program."""
    each = [(vendor, name) for name in cases for vendor in VENDORS]
    ids = zoo.submit_all(step(vendor, *cases[name].acts) for vendor, name in each)
    return Played(zoo, dict(zip(each, ids, strict=True)))


@contextlib.contextmanager
def vendors(top: Path) -> Iterator[Vendors]:
    here = Vendors(top)
    with here.broker():
        yield here
    here.close()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Played, Played]]:
    """The cases and the quiet ones, which take their time while the others work."""
    make = tmp_path_factory.mktemp
    with vendors(make("quiet")) as patient, vendors(make("vendors")) as zoo:
        quiet = submitted(patient, QUIET)
        slots = (len(quiet.jobs) + 1) // 2
        running = patient.drain_soon(slots, RUNNER_MAX_IDLE_SEC=str(IDLE_S))
        jobs = submitted(zoo, CASES)
        jobs = replace(jobs, told=zoo.drain_all())
        patient.drained(running)
        yield jobs, quiet


@pytest.fixture(scope="module")
def jobs(both: tuple[Played, Played]) -> Played:
    return both[0]


@pytest.fixture(scope="module")
def quiet(both: tuple[Played, Played]) -> Played:
    return both[1]


@pytest.fixture(scope="module")
def zoo(jobs: Played) -> Vendors:
    return jobs.zoo


# ---- how they end -----------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("name", CASES)
def test_each_has_a_clear_end_and_leaves_nobody(
    zoo: Vendors, jobs: Played, vendor: str, name: str
) -> None:
    job_id, case = jobs.jobs[vendor, name], CASES[name]
    result = zoo.result(job_id)
    assert outcome(result) == (case.outcome, case.error), result
    assert living(job_id) == []
    assert zoo.queue_of(job_id) == ("done" if case.outcome == "success" else "failed")
    assert "\x1b" not in json.dumps(result, ensure_ascii=False)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("name", QUIET)
def test_quiet_is_not_dead_and_done_is_done(quiet: Played, vendor: str, name: str) -> None:
    job_id, case = quiet.jobs[vendor, name], QUIET[name]
    result = quiet.result(vendor, name)
    assert outcome(result) == (case.outcome, case.error), result
    assert living(job_id) == []
    assert result["metrics"]["duration_ms"] < STAYS_S * 1000
    if case.outcome == "success" and name.startswith("stays"):
        assert result["session_id"]


# ---- what they said ---------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
def test_odd_characters_are_kept_where_they_can_be(zoo: Vendors, jobs: Played, vendor: str) -> None:
    job_id = jobs.jobs[vendor, "every plane"]
    assert PLANES in zoo.result(job_id)["summary"]
    assert UNICODE in (zoo.artifacts(job_id) / "report.md").read_text("utf-8")
    assert jobs.result(vendor, "half a pair")["summary"] == "half ? a pair ?"


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_result_that_comes_twice_is_told_once(zoo: Vendors, jobs: Played, vendor: str) -> None:
    job_id = jobs.jobs[vendor, "its result twice"]
    assert zoo.result(job_id)["summary"] == DONE
    assert (zoo.artifacts(job_id) / "steps/one/report.md").read_text().count(DONE) == 2


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_beginning_of_a_long_answer_is_its_report(
    zoo: Vendors, jobs: Played, vendor: str
) -> None:
    job_id = jobs.jobs[vendor, "an answer of 6 MB"]
    assert zoo.result(job_id)["summary"].startswith("Long.")
    report = zoo.artifacts(job_id) / "steps/one/report.md"
    assert 500_000 < report.stat().st_size < 2_000_000


@pytest.mark.parametrize("vendor", VENDORS)
def test_what_nobody_expected_is_shown(zoo: Vendors, jobs: Played, vendor: str) -> None:
    error = jobs.result(vendor, "stderr alone, and exit 1")["error"]
    assert any("odd" in line for line in error["details"]["evidence"])


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_key_in_the_answer_is_nowhere(zoo: Vendors, jobs: Played, vendor: str) -> None:
    job_id = jobs.jobs[vendor, "a key"]
    for directory in (zoo.artifacts(job_id), zoo.state / "queue"):
        found = subprocess.run(
            ["grep", "-rlaF", "ant-api03-Zq7", directory], check=False, text=True
        )
        assert found.returncode == 1, found
    told = [zoo.run(name, job_id).stdout for name in ("status", "logs")]
    assert not any("ant-api03-Zq7" in words for words in (*told, jobs.told))


def test_no_grant_outlives_its_step(jobs: Played, quiet: Played) -> None:
    for one in (jobs, quiet):
        assert list((one.zoo.top / "broker" / "grants").iterdir()) == []


# ---- what is shown ----------------------------------------------------------------------------


def shown(zoo: Vendors, *argv: str) -> bytes:
    """What a command writes on a terminal."""
    ours, its = pty.openpty()
    with contextlib.closing(os.fdopen(ours, "rb", buffering=0)) as screen:
        process = subprocess.Popen(
            zoo.argv(*argv), stdin=its, stdout=its, stderr=its, env=zoo.environment, cwd=zoo.top
        )
        os.close(its)
        found = b""
        # the last terminal of a session that is closed is an error to read
        with contextlib.suppress(OSError):
            while piece := screen.read(65536):
                found += piece
        process.wait()
    return found


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_terminal_gets_no_escape_of_an_agent_s(zoo: Vendors, jobs: Played, vendor: str) -> None:
    job_id = jobs.jobs[vendor, "escapes"]
    on_screen = shown(zoo, "logs", job_id) + shown(zoo, "status", job_id)
    assert b"red " in on_screen
    assert not set(on_screen) & {0x1B, 0x07, 0x08, 0x00}
    assert not {"\x9b", "\u202e"} & set(on_screen.decode())


BAD = frozenset(ESCAPES) - frozenset("evil 2Jmred back<script>alert(1)</script>]0;[31")


def strings(value: object) -> Iterator[str]:
    """Every string in a JSON value."""
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from strings(inner)
        case list():
            for inner in value:
                yield from strings(inner)


@pytest.mark.parametrize("vendor", VENDORS)
def test_what_is_stored_for_people_has_no_escape(zoo: Vendors, jobs: Played, vendor: str) -> None:
    top = zoo.artifacts(jobs.jobs[vendor, "escapes"])
    read = [path for path in top.rglob("*") if path.is_file() and "raw_" not in path.name]
    assert {"result.json", "state.json", "context.json", "report.md", "logs.txt"} <= {
        path.name for path in read
    }
    for path in read:
        text = path.read_text("utf-8")
        told = strings(json.loads(text)) if path.suffix == ".json" else [text]
        assert not BAD & set().union(*told), path
    assert not BAD & set(jobs.told)


def test_a_list_on_a_terminal_has_no_escape_of_a_job_s(zoo: Vendors) -> None:
    goal = f"see {ESCAPES}".replace("\0", "")
    document = {"goal": goal, "steps": [step("claude", ["answer"])]}
    zoo.run("submit", "-", given=json.dumps(document))
    on_screen = shown(zoo, "ls")
    assert b"see" in on_screen
    assert not any(bad in on_screen for bad in (b"\x1b]", b"\x1b[2J", b"\x07", b"\x08", b"evil"))
    assert "\u202e" not in on_screen.decode()
    zoo.drain_all(1)
