"""A transient service of the user's own manager for every attempt (systemd-run(1)).

The unit outlives its runner: the next one adopts it by its name. It has a control group of its
own, with the limits that hold for the job, and nothing in it is left when it has ended. What the
step's process knows of the runner's environment goes by a file of mode 0600, since units and
command lines can be read by everybody; the step removes it.

Nothing here is a fallback: where the manager does not answer, the runner waits.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from agentorch.config import environment_file
from agentorch.config.settings import SECRET
from agentorch.core.attempt import PREFIX, Attempt, identity
from agentorch.core.errors import Misconfigured, TryAgain
from agentorch.core.resources import Resources
from agentorch.launch import unit_recorder
from agentorch.launch.base import Busy, Stop
from agentorch.launch.unit_end import usage_of
from agentorch.storage import atomic
from agentorch.storage.json_files import read_json
from agentorch.storage.locks import hold_lock
from agentorch.storage.paths import AttemptPaths, Roots, UnitPaths

# Every step's unit, and none of a sandbox that systemd-run(1) makes for one.
PATTERN = f"{PREFIX}*:*:a*.service"
SIGNALS = {Stop.CANCEL: "SIGTERM", Stop.GIVE_BACK: "SIGINT"}

# The step keeps its agent's timeout_sec itself, and prepares and records besides. RuntimeMaxSec=
# is for one that hangs: timeout_sec < timeout_sec + MARGIN_S.
MARGIN_S = 900
# From the start to READY=1: imports, the step's lock, its claim.
START_S = 90
# Limits.grace_s of the agent, and the record, fit into it (5 s < STOP_S); the system's own
# user@.service gives all units of a user 120 s to stop.
STOP_S = 60
# A call that waits for a start or a stop takes longer than these: max(START_S, STOP_S) < CALL_S.
CALL_S = 120

NOT_LOADED = 5  # systemctl(1), exit status

# What the runner's own manager gave to the runner, and to nobody else.
OF_THE_RUNNER = frozenset(
    {
        *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS"),
        *("LISTEN_FDNAMES", "INVOCATION_ID", "JOURNAL_STREAM", "MAINPID", "MANAGERPID"),
        *("SYSTEMD_EXEC_PID", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "FDSTORE"),
        *("CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY", "AGENTORCH_UNIT"),
    }
)


class Systemd:
    """Runs attempts in units. `program` is the agentorch-step of this installation; `limits`
    tells what holds for an attempt, `environment` is what it inherits.
    """

    outlives = True

    def __init__(
        self,
        roots: Roots,
        environment: Mapping[str, str],
        program: Sequence[str],
        limits: Callable[[Attempt], Resources],
    ) -> None:
        self._roots = roots
        self._environment = environment_for(environment)
        self._program = program
        self._limits = limits

    def submit(self, attempt: Attempt) -> str:
        """Start the unit and wait until it has the step's lock."""
        step = self._roots.artifacts(attempt.job.job_id).step(attempt.step.step_id)
        step.attempts.mkdir(0o750, parents=True, exist_ok=True)
        with hold_lock(step.lock, wait=False, owning=False) as free:
            if free is None:
                raise Busy(attempt.name)
        paths = step.attempt(attempt.number)
        if paths.claim.exists():
            return attempt.name
        unit = self._roots.workspace(attempt.job.job_id).unit(attempt.step.step_id)
        self._prepare(unit, step.unit)
        argv = run_argv(
            attempt, self._program, self._limits(attempt), unit, paths, Path.cwd(), sys.executable
        )
        done = _call(argv)
        if done.returncode != 0 and not paths.claim.exists():
            raise _trouble(done)
        return attempt.name

    def _prepare(self, unit: UnitPaths, marker: Path) -> None:
        with atomic.disk_trouble(unit.directory):
            marker.touch(0o640)
            unit.directory.mkdir(0o700, parents=True, exist_ok=True)
            atomic.replace(unit.environment, self._environment, mode=0o600, last=False)
            shutil.copyfile(unit_recorder.__file__, unit.recorder)

    def list(self) -> Mapping[str, str]:
        """Those whose unit is there."""
        done = _call(list_argv())
        if done.returncode != 0:
            raise _trouble(done)
        return dict.fromkeys(units_in(done.stdout), "running")

    def cancel(self, name: str, why: Stop) -> None:
        """Send the step's process TERM (cancel) or INT (give back)."""
        done = _call(kill_argv(name, SIGNALS[why]))
        if done.returncode != 0 and name in self.list():
            raise _trouble(done)

    def usage(self, name: str) -> Mapping[str, float]:
        """Wait for the unit's end, whose main process is gone or was never to be."""
        done = _call(stop_argv(name))
        if done.returncode not in (0, NOT_LOADED):
            raise _trouble(done)
        job_id, step_id, number = identity(name)
        shutil.rmtree(self._roots.workspace(job_id).unit(step_id).directory, ignore_errors=True)
        step = self._roots.artifacts(job_id).step(step_id)
        step.unit.unlink(missing_ok=True)
        end = read_json(step.attempt(number).end)
        return {} if end is None else usage_of(end)


# ---- command lines ----------------------------------------------------------------------------


def run_argv(
    attempt: Attempt,
    program: Sequence[str],
    limits: Resources,
    unit: UnitPaths,
    paths: AttemptPaths,
    cwd: Path,
    python: str,
) -> list[str]:
    """Start an attempt's unit; return when its step said READY=1. Pure."""
    job, step = attempt.job.job_id, attempt.step
    return [
        "systemd-run",
        "--user",
        "--quiet",
        "--collect",
        "--no-ask-password",
        "--service-type=notify",
        f"--unit={unit_of(attempt.name)}",
        f"--description=agentorch: step {step.step_id} of {job}, attempt {attempt.number}",
        f"--working-directory={cwd}",
        *(f"--property={one}" for one in _properties(step.timeout_s, unit)),
        *(f"--property={one}" for one in _limiting(limits)),
        f"--property=ExecStopPost={_recording(python, unit, paths)}",
        "--",
        *(_literal(word) for word in program),
        f"--attempt={attempt.number}",
        f"--base={attempt.base}",
        f"--first={attempt.first}",
        f"--resumes={attempt.resumes}",
        job,
        step.step_id,
    ]


def _properties(timeout_s: int, unit: UnitPaths) -> Iterator[str]:
    yield "NotifyAccess=main"
    # optional: it is read again for ExecStopPost=, and is gone by then
    yield f"EnvironmentFile=-{unit.environment}"
    yield f"TimeoutStartSec={START_S}"
    yield f"RuntimeMaxSec={timeout_s + MARGIN_S}"
    yield f"TimeoutStopSec={STOP_S}"
    # a stop of the unit is nobody's cancel: at shutdown, too, the attempt is given back
    yield "KillSignal=SIGINT"
    yield "KillMode=mixed"
    # the kernel kills what uses most, the agent; the step then records that itself
    yield "OOMPolicy=continue"
    yield "UMask=0027"
    yield "SyslogIdentifier=agentorch-step"
    yield "StandardInput=null"
    yield "StandardOutput=null"
    yield "StandardError=journal"
    yield from (f"{kind}Accounting=yes" for kind in ("CPU", "Memory", "IO", "Tasks"))


def _limiting(limits: Resources) -> Iterator[str]:
    if limits.memory_max_bytes is not None:
        yield f"MemoryMax={limits.memory_max_bytes}"
        yield "MemorySwapMax=0"
    if limits.memory_high_bytes is not None:
        yield f"MemoryHigh={limits.memory_high_bytes}"
    if limits.cpu_quota_percent is not None:
        yield f"CPUQuota={limits.cpu_quota_percent}%"
    if limits.tasks_max is not None:
        yield f"TasksMax={limits.tasks_max}"
    if limits.io_weight is not None:
        yield f"IOWeight={limits.io_weight}"


def _recording(python: str, unit: UnitPaths, paths: AttemptPaths) -> str:
    words = (python, "-I", "-S", str(unit.recorder), str(paths.claim), str(paths.end))
    return " ".join(_quote(word) for word in words)


def _quote(word: str) -> str:
    """Return a word as systemd.service(5) reads command lines."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_literal(escaped)}"'


def _literal(word: str) -> str:
    """Return a word in which nothing is a variable."""
    return word.replace("$", "$$")


def list_argv() -> list[str]:
    """Print `Id=` and `ActiveState=` of every step's unit. Pure."""
    return ["systemctl", "--user", "show", "--property=Id,ActiveState", PATTERN]


def kill_argv(name: str, number: str) -> list[str]:
    """Send a signal to the step's own process. Pure."""
    return [
        "systemctl",
        "--user",
        "kill",
        "--kill-whom=main",
        f"--signal={number}",
        unit_of(name),
    ]


def stop_argv(name: str) -> list[str]:
    """Return when the unit has ended, with NOT_LOADED where it is gone by now. Pure."""
    return ["systemctl", "--user", "stop", unit_of(name)]


def unit_of(name: str) -> str:
    """Return the unit of an attempt: its name has only characters that a unit's may have. Pure."""
    return f"{name}.service"


# ---- what is said -----------------------------------------------------------------------------


def units_in(text: str) -> list[str]:
    """Return the attempts whose unit is not over, in what `list_argv` prints. Pure."""
    found = []
    for block in text.split("\n\n"):
        told = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if told.get("ActiveState", "inactive") not in ("inactive", "failed"):
            found.append(told["Id"].removesuffix(".service"))
    return found


def environment_for(environment: Mapping[str, str]) -> bytes:
    """Return the environment file of a step: what its runner read, so nothing is read again.
    Pure.
    """
    others = OF_THE_RUNNER | SECRET
    kept = {name: value for name, value in environment.items() if name not in others}
    return environment_file.quote({**kept, "AGENTORCH_ENV_FILE": os.devnull})


def _call(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run one of the command lines. Raises TryAgain where it does not come back."""
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CALL_S,
            check=False,
            # a terminal's ^C is for the runner
            start_new_session=True,
        )
    except FileNotFoundError as problem:
        words = f"AGENTORCH_LAUNCHER: 'systemd': there is no {argv[0]} on PATH"
        raise Misconfigured(words) from problem
    except subprocess.TimeoutExpired as problem:
        raise TryAgain(f"{argv[0]} did not end within {CALL_S} s") from problem


def _trouble(done: subprocess.CompletedProcess[str]) -> TryAgain:
    words = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
    program = done.args[0]
    return TryAgain(f"{program}, service manager of user {getpass.getuser()!r}: {words}")
