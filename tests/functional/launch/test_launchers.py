"""A step's unit: its command lines as lists, what its end means, what its recorder reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentorch.config import environment_file
from agentorch.core.attempt import Attempt, identity
from agentorch.core.errors import Exit
from agentorch.core.job import Job, Outcome, Step
from agentorch.core.resources import UNLIMITED, Resources
from agentorch.core.results import sum_metrics
from agentorch.core.states import OutcomeClass
from agentorch.launch import systemd, unit_end, unit_recorder
from agentorch.storage.paths import AttemptPaths, UnitPaths

JOB = "0192.f-a_b"
STEP = Step("01_a-b", "exec", "worker", "true", timeout_s=60)
ATTEMPT = Attempt(
    Job(JOB, "2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC), "a goal", (STEP,)),
    STEP,
    3,
    2,
)


def argv(limits: Resources = UNLIMITED) -> list[str]:
    return systemd.run_argv(
        ATTEMPT,
        ("python3", "/opt/a $HOME/agentorch-step"),
        limits,
        UnitPaths(Path("/w/100%/unit/01_a-b")),
        AttemptPaths(Path('/a/a "b"/3')),
        Path("/srv"),
        "/usr/bin/python3",
    )


def properties(limits: Resources = UNLIMITED) -> dict[str, str]:
    given = (word.removeprefix("--property=") for word in argv(limits) if "--property=" in word)
    return dict(word.split("=", 1) for word in given)


def test_the_name_is_the_identity() -> None:
    assert ATTEMPT.name == f"agentorch-step-{JOB}:01_a-b:a3"
    assert identity(ATTEMPT.name) == (JOB, "01_a-b", 3)


def test_the_longest_name_is_a_units() -> None:
    step = Step("s" * 64, "exec", "worker", "true")
    longest = Attempt(
        Job("j" * 64, "", datetime(2026, 1, 1, tzinfo=UTC), "g", (step,)), step, 10**6, 1
    )
    assert len(systemd.unit_of(longest.name)) <= 255


def test_the_command_line() -> None:
    given = argv()
    assert given[:2] == ["systemd-run", "--user"]
    assert f"--unit=agentorch-step-{JOB}:01_a-b:a3.service" in given
    assert given[given.index("--") + 1 :] == [
        "python3",
        "/opt/a $$HOME/agentorch-step",
        "--attempt=3",
        "--base=2",
        "--first=0",
        "--resumes=0",
        JOB,
        "01_a-b",
    ]


def test_what_a_unit_keeps_to() -> None:
    found = properties()
    assert found["RuntimeMaxSec"] == "960"
    assert (found["KillSignal"], found["KillMode"]) == ("SIGINT", "mixed")
    assert found["OOMPolicy"] == "continue"
    # no specifiers are looked for in what comes by the bus
    assert found["EnvironmentFile"] == "-/w/100%/unit/01_a-b/environment"
    words = '"/usr/bin/python3" "-I" "-S" "/w/100%/unit/01_a-b/recorder.py"'
    assert found["ExecStopPost"].startswith(f'{words} "/a/a \\"b\\"/3/claim"')
    assert max(systemd.START_S, systemd.STOP_S) < systemd.CALL_S


def test_no_limit_is_no_property() -> None:
    limiting = {"MemoryMax", "MemoryHigh", "MemorySwapMax", "CPUQuota", "TasksMax", "IOWeight"}
    assert not limiting & set(properties())


def test_limits() -> None:
    found = properties(Resources(50 << 20, 40 << 20, 150, 100, 10))
    assert found["MemoryMax"] == str(50 << 20)
    assert found["MemoryHigh"] == str(40 << 20)
    assert found["MemorySwapMax"] == "0"
    assert found["CPUQuota"] == "150%"
    assert (found["TasksMax"], found["IOWeight"]) == ("100", "10")


def test_the_units_that_are_there() -> None:
    text = (
        "Id=agentorch-step-a:s:a1.service\nActiveState=active\n\n"
        "ActiveState=deactivating\nId=agentorch-step-b:s:a1.service\n\n"
        "Id=agentorch-step-c:s:a1.service\nActiveState=inactive\n"
    )
    assert systemd.units_in(text) == ["agentorch-step-a:s:a1", "agentorch-step-b:s:a1"]
    assert systemd.units_in("") == []


def test_the_environment_of_a_step() -> None:
    given = {
        "A": 'a "b"\n$c \\ `d`',
        "NOTIFY_SOCKET": "/x",
        "WATCHDOG_USEC": "1",
        "WEBHOOK_TOKENS": "secret=*",
        "AGENTORCH_ENV_FILE": "/etc/x",
    }
    read = environment_file.parse(systemd.environment_for(given).decode(), "environment")
    assert read == {"A": given["A"], "AGENTORCH_ENV_FILE": "/dev/null"}


# ---- what an end means ------------------------------------------------------------------------


def end(result: str, code: str, status: str, **figures: Any) -> dict[str, Any]:
    return {
        "service_result": result,
        "exit_code": code,
        "exit_status": status,
        "ran_s": 10.0,
        "oom_kills": None,
        **figures,
    }


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (
            end("signal", "killed", "KILL", oom_kills=1),
            OutcomeClass.OOM,
            "the step was killed: out of memory",
        ),
        (
            end("oom-kill", "killed", "KILL"),
            OutcomeClass.OOM,
            "the step was killed: out of memory",
        ),
        (
            end("timeout", "killed", "KILL", ran_s=960.2),
            OutcomeClass.TIMEOUT,
            "the step was ended after 960 s: it did not keep its time limit",
        ),
        (
            end("signal", "killed", "KILL", oom_kills=0),
            OutcomeClass.INFRA,
            "left no result: its process was killed by SIGKILL",
        ),
        (
            end("core-dump", "dumped", "SEGV"),
            OutcomeClass.INFRA,
            "left no result: its process was killed by SIGSEGV",
        ),
        (
            end("exit-code", "exited", "70"),
            OutcomeClass.INFRA,
            "left no result: its process exited with 70",
        ),
    ],
)
def test_the_cause_is_told(given: dict[str, Any], kind: OutcomeClass, words: str) -> None:
    outcome = unit_end.outcome_of(given, 60)
    assert outcome is not None
    assert (outcome.kind, outcome.summary) == (kind, words)


@pytest.mark.parametrize(
    "given",
    [
        end("signal", "killed", "INT"),
        end("exit-code", "exited", "130"),
        # stopped before its time, and killed when it did not leave
        end("timeout", "killed", "KILL", ran_s=59.0),
    ],
)
def test_what_was_stopped_is_run_again(given: dict[str, Any]) -> None:
    assert unit_end.outcome_of(given, 60) is None


def test_a_full_disk_is_known() -> None:
    assert unit_end.has_exit_code(end("exit-code", "exited", "75"), Exit.TRY_AGAIN)
    assert not unit_end.has_exit_code(end("signal", "killed", "KILL"), Exit.TRY_AGAIN)


def test_memory_is_told_of_an_oom_only() -> None:
    figures = {"memory_peak_bytes": 50 << 20, "memory_max_bytes": 52428800}
    killed = Outcome(OutcomeClass.OOM, "x was killed: out of memory", details={"a": 1})
    told = unit_end.with_memory(killed, figures)
    assert told.summary == "x was killed: out of memory (peak 50.0 MiB of 50.0 MiB)"
    assert told.details == {"a": 1, **figures}
    assert unit_end.with_memory(killed, {"memory_peak_bytes": None}) == killed
    fine = Outcome(OutcomeClass.SUCCESS, "fine")
    assert unit_end.with_memory(fine, figures) == fine


def test_a_jobs_peak_is_that_of_a_step() -> None:
    steps: list[dict[str, Any]] = [
        {"memory_peak_bytes": 3, "cpu_s": 1.5, "tasks_peak": 7},
        {"memory_peak_bytes": 2, "cpu_s": 1, "tasks_peak": 9},
    ]
    assert sum_metrics(steps) == {"memory_peak_bytes": 3, "cpu_s": 2.5, "tasks_peak": 9}


# ---- the recorder -----------------------------------------------------------------------------


def test_figures_of_a_control_group(tmp_path: Path) -> None:
    files = {
        "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\n",
        "memory.peak": "52428800\n",
        "memory.max": "max\n",
        "memory.events": "low 0\noom 2\noom_kill 1\noom_group_kill 0\n",
        "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2\n8:16 rbytes=1 wbytes=2 rios=0 wios=0\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert unit_recorder.figures(str(tmp_path)) == {
        "cpu_s": 1.5,
        "memory_peak_bytes": 52428800,
        "memory_max_bytes": None,
        "io_read_bytes": 11,
        "io_write_bytes": 22,
        "tasks_peak": None,
        "oom_kills": 1,
    }


def record(program: Path, top: Path, **told: str) -> None:
    """Runs a copy of the recorder as systemd does."""
    argv = (sys.executable, "-I", "-S", program, top / "claim", top / "end.json")
    subprocess.run(argv, env={"PATH": os.environ["PATH"], **told}, check=True)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    copied = tmp_path / "recorder.py"
    copied.write_bytes(Path(unit_recorder.__file__).read_bytes())
    return copied


def test_the_first_end_stays(tmp_path: Path, program: Path) -> None:
    (tmp_path / "claim").touch()
    record(program, tmp_path, SERVICE_RESULT="signal", EXIT_CODE="killed", EXIT_STATUS="KILL")
    record(program, tmp_path, SERVICE_RESULT="protocol", EXIT_CODE="exited", EXIT_STATUS="0")
    found = json.loads((tmp_path / "end.json").read_text())
    assert (found["service_result"], found["exit_code"]) == ("signal", "killed")
    assert found["exit_status"] == "KILL"
    assert 0 <= found["ran_s"] < 60
    assert set(unit_recorder.figures()) < set(found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["claim", "end.json", "recorder.py"]


def test_nothing_began_without_a_claim(tmp_path: Path, program: Path) -> None:
    record(program, tmp_path, SERVICE_RESULT="exit-code", EXIT_CODE="exited", EXIT_STATUS="70")
    assert not (tmp_path / "end.json").exists()
