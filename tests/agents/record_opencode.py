"""Makes the corpora of OpenCode, by runs of the real program against the model double.

    python -m tests.agents.record_opencode [NAME…]       in the repository's top; all: 15 minutes

Each run is a file `corpora/opencode/NAME.json`: how the process ended, and both streams, with
ids, times and paths replaced by fixed ones, so that a new recording shows only what changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentorch.agents.base import Command, Endpoint, Request
from agentorch.agents.opencode.adapter import AGENT
from agentorch.scripted_model import Answer, ModelDouble, Turn, playing
from tests.agents.opencode_cases import CASES, Case
from tests.support import clis

CORPORA = Path(__file__).parent / "corpora" / "opencode"
BEFORE = "def add(a, b):\n    return a - b\n"
AFTER = "def add(a, b):\n    return a + b\n"


# ---- one run ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """How a run ended, and what it printed."""

    code: int | None
    signal: int | None
    slow: bool
    seconds: float
    stdout: str
    stderr: str


def request(case: Case, top: Path, url: str) -> Request:
    """What the step asks."""
    return Request(
        job_id="job-12345678",
        step_id="02_implement",
        attempt=1,
        agent=AGENT.name,
        role=case.role,
        goal="Make it add.",
        prompt=case.prompt,
        script=case.prompt,
        work=top / "work",
        home=top / "home",
        artifacts=top / "artifacts",
        model=case.model,
        reads_only=case.role == "planner",
        resume=case.resume,
        endpoint=Endpoint(AGENT.provider(case.model) or "", url, "step-token"),
    )


def changed(command: Command, case: Case) -> Command:
    """The command with what the case has otherwise."""
    variables = dict(command.environment)
    configuration = json.loads(variables["OPENCODE_CONFIG_CONTENT"])
    configuration["permission"] |= case.permission
    for entry in configuration["provider"].values():
        entry["options"] |= case.options
    variables["OPENCODE_CONFIG_CONTENT"] = json.dumps(configuration)
    return replace(command, argv=(*command.argv, *case.argv), environment=variables)


def laid_out(top: Path) -> None:
    """The repository to work in, and an empty home."""
    for name in ("work", "home", "artifacts"):
        (top / name).mkdir()
    (top / "work" / "add.py").write_text(BEFORE)
    subprocess.run(["git", "init", "-q"], cwd=top / "work", check=True)


def placed(command: Command, home: Path) -> None:
    """The command's files, below its home."""
    for name, content in command.files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)


def environment(command: Command, home: Path) -> dict[str, str]:
    """All that the program gets."""
    path = f"{clis.programs()}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(home), "TMPDIR": "/tmp", **command.environment}


def run(case: Case, top: Path, double: ModelDouble) -> Ran:
    """One run of the real program, until it ends or is ended."""
    url = "http://127.0.0.1:1/openai" if case.refused else double.url
    command = changed(AGENT.command(request(case, top, url)), case)
    placed(command, top / "home")
    (top / "stdin").write_bytes(command.stdin)
    began = time.monotonic()
    with (
        (top / "stdin").open("rb") as stdin,
        (top / "stdout").open("wb") as stdout,
        (top / "stderr").open("wb") as stderr,
    ):
        process = subprocess.Popen(
            command.argv,
            executable=clis.programs() / command.argv[0],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment(command, top / "home"),
            cwd=top / "work",
            start_new_session=True,
        )
        slow = _ended(process, case, double)
    seconds = time.monotonic() - began
    code = process.returncode
    said = [(top / name).read_text(errors="replace") for name in ("stdout", "stderr")]
    return Ran(
        max(code, 0) if code >= 0 else None, -code if code < 0 else None, slow, seconds, *said
    )


def _ended(process: subprocess.Popen[bytes], case: Case, double: ModelDouble) -> bool:
    """Waits for the end; whether it had to be ended as too slow."""
    if case.ends is not None:
        _until(lambda: bool(double.asked))
        process.send_signal(case.ends)
    try:
        process.wait(case.limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def _until(there: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not there():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


# ---- the files --------------------------------------------------------------------------------

_FIXED = (
    (re.compile(r'"(timestamp|start|end|created|time)":\d{13}'), r'"\1":1750000000000'),
    (re.compile(r"\b(ses|msg|prt|per|call)_[A-Za-z0-9]{20,}"), r"\1_0000000000000000000000000"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:8080"),
    (re.compile(r'"date":"[^"]*"'), '"date":"Mon, 16 Jun 2025 00:00:00 GMT"'),
    (re.compile(r'"server":"[^"]*"'), '"server":"double"'),
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
)


def normal(text: str, top: Path) -> str:
    """The text as any machine would have made it."""
    for found, to in ((str(top), "/agentorch"), (str(clis.programs().parent), "/opt/clis")):
        text = text.replace(found, to)
    for pattern, instead in _FIXED:
        text = pattern.sub(instead, text)
    return text


def recorded(case: Case, ran: Ran, top: Path, asked: int) -> dict[str, Any]:
    """The document of a run."""
    return {
        "version": clis.PACKAGES["opencode-ai"],
        "exit": {"code": ran.code, "signal": ran.signal, "slow": ran.slow},
        "asked": asked,
        "stdout": normal(ran.stdout, top).splitlines(),
        "stderr": normal(ran.stderr, top).splitlines(),
    }


def record(name: str) -> None:
    """Runs a case, and writes its file."""
    top = Path(tempfile.mkdtemp(prefix="agentorch-opencode-", dir="/var/tmp"))
    case = CASES[name]
    try:
        laid_out(top)
        with playing(_located(case.answers, top)) as double:
            ran = run(case, top, double)
            asked = len(double.asked)
        document = recorded(case, ran, top, asked)
    finally:
        shutil.rmtree(top, ignore_errors=True)
    CORPORA.mkdir(parents=True, exist_ok=True)
    (CORPORA / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    sys.stderr.write(f"{name}: {document['exit']}, asked {asked}, {ran.seconds:.1f} s\n")


def _located(answers: Sequence[Answer], top: Path) -> list[Answer]:
    """The answers, with the work tree's path where they say WORK."""
    return [_turn(one, str(top / "work")) if isinstance(one, Turn) else one for one in answers]


def _turn(turn: Turn, work: str) -> Turn:
    calls = [
        replace(
            call,
            arguments={
                key: value.replace("WORK", work) if isinstance(value, str) else value
                for key, value in call.arguments.items()
            },
        )
        for call in turn.calls
    ]
    return replace(turn, calls=tuple(calls))


if __name__ == "__main__":
    for chosen in sys.argv[1:] or CASES:
        record(chosen)
