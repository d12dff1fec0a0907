"""Vendors' programs at the limits: as much output as there can be, or none at all."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentorch.agents.claude import adapter
from agentorch.agents.codex import adapter as codex
from agentorch.agents.exit_outcome import outcome_of_exit
from agentorch.agents.opencode import adapter as opencode
from agentorch.core.process_end import Ending
from agentorch.core.states import OutcomeClass
from tests.agents.vendors import VENDORS, Act, Vendors, living, outcome, step
from tests.support.cage import Cage
from tests.support.installation import TIMEOUT_S

MB = 1024  # in kB, as /proc says it
# Twice what a step has by itself, the interpreter and our modules: none of a flood is in it.
STEP_KB = 80 * MB


@pytest.fixture
def zoo(tmp_path: Path) -> Iterator[Vendors]:
    here = Vendors(tmp_path)
    yield here
    here.close()


@pytest.fixture
def cage(tmp_path: Path) -> Iterator[Cage]:
    cage = Cage(tmp_path)
    yield cage
    cage.wish.close()


def peak_kb(pid: int) -> int:
    """The most memory that a process ever had at once; 0 when it has ended."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def alone(zoo: Vendors, vendor: str, *acts: Act) -> subprocess.Popen[str]:
    """A step with no queue, which has just begun."""
    document = {"goal": "g", "steps": [step(vendor, *acts)]}
    file = zoo.top / f"{vendor}.json"
    file.write_text(json.dumps(document))
    where = ("--workdir", str(zoo.repository), "--output", str(zoo.top / "output" / vendor))
    return zoo.start("step", "--job", str(file), "--step", "one", *where)


@pytest.mark.needs("bwrap")
def test_a_step_with_no_queue_has_its_way_out(zoo: Vendors) -> None:
    for vendor in VENDORS:
        told, problems = alone(zoo, vendor, ["answer"]).communicate(timeout=TIMEOUT_S)
        assert outcome(json.loads(told)) == ("success", None), problems


@pytest.mark.needs("bwrap")
def test_a_gigabyte_of_output_in_flat_memory(zoo: Vendors) -> None:
    running = alone(zoo, "claude", ["flood", 1 << 30], ["answer"])
    peak, met = 0, False
    while running.poll() is None:
        peak = max(peak, peak_kb(running.pid))
        # else that nobody is left proves nothing
        met = met or living("output/claude") != []
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(0.05)
    result = json.loads(running.communicate()[0])
    assert outcome(result) == ("success", None), result
    assert result["summary"] == "I did what was asked."
    assert (met, living("output/claude")) == (True, [])
    assert 0 < peak < STEP_KB
    kept = sum(path.stat().st_size for path in (zoo.top / "output").rglob("*") if path.is_file())
    assert kept < 4_000_000


def test_silence_from_the_start_has_its_own_deadline(cage: Cage) -> None:
    limits = dataclasses.replace(cage.limits(), first_output_s=0.3)
    ended = cage.run(cage.launch("/bin/sleep", "60"), limits)
    assert ended.ending is Ending.SILENT
    told = outcome_of_exit(ended, "sleep")
    assert told is not None
    assert (told.kind, told.error) == (OutcomeClass.STALLED, "no_output")


def test_who_said_anything_is_not_silent(cage: Cage) -> None:
    limits = dataclasses.replace(cage.limits(), first_output_s=0.3)
    ended = cage.run(cage.launch("/bin/sh", "-c", "echo x >&2; sleep 1; echo y"), limits)
    assert (ended.ending, ended.code) == (Ending.EXITED, 0)


HASTY = """
from dataclasses import replace
from agentorch.agents.claude.adapter import CAPABILITIES, ClaudeAgent

AGENT = ClaudeAgent("hasty", replace(CAPABILITIES, first_output_s=3))
"""


@pytest.mark.needs("bwrap")
def test_an_adapter_s_deadline_holds_for_its_program(zoo: Vendors) -> None:
    """By an adapter that differs from Claude's in nothing else."""
    assert [one.AGENT.capabilities.first_output_s for one in (adapter, codex, opencode)] == [
        60,
        60,
        # it says nothing before its model did
        0,
    ]
    package = zoo.top / "packages"
    (package / "hasty-1.dist-info").mkdir(parents=True)
    (package / "hasty.py").write_text(HASTY)
    (package / "hasty-1.dist-info" / "METADATA").write_text("Name: hasty\nVersion: 1\n")
    (package / "hasty-1.dist-info" / "entry_points.txt").write_text("[ours]\nhasty = hasty:AGENT\n")
    zoo.environment |= {"PYTHONPATH": str(package), "WORKER_ENTRYPOINT_GROUP": "ours"}
    silent, late = zoo.submit_all(
        [step("hasty", ["hang"]), step("hasty", ["raw", "\n"], ["compute", 4], ["answer"])]
    )
    zoo.drain_all(2)
    assert outcome(zoo.result(silent)) == ("stalled", "no_output")
    assert living(silent) == []
    assert outcome(zoo.result(late)) == ("success", None)
