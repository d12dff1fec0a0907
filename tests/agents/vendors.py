"""Whole jobs by programs that have the vendors' names, and do as their prompt says."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentorch.broker import client
from tests.support.installation import TIMEOUT_S, Installation

ZOO = Path(__file__).parent / "zoo" / "vendors"
CORPORA = Path(__file__).parent / "corpora"
VENDORS = ("claude", "codex", "opencode")
# Put together here: scanners of files know the form.
KEY = "-".join(("sk", "ant", "canary", "9f86d081884c7d659a2feaa0c55ad015"))
KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")
PROJECTS = tuple(f"p{number}" for number in range(200))
SLOTS = 6

Act = list[Any]


def step(vendor: str, *acts: Act, **fields: Any) -> dict[str, Any]:
    """A step whose agent does this."""
    base = {"step_id": "one", "agent": vendor, "role": "implementer", "prompt": prompt(*acts)}
    return {**base, "max_retries": 0, "retry_backoff_sec": 0, "timeout_sec": 60, **fields}


def prompt(*acts: Act) -> str:
    """What makes a program of the zoo do this."""
    return f"Do as you are told.\nzoo: {json.dumps(acts)}\n"


class Vendors(Installation):
    """An installation with the vendors' programs on PATH, and keys that lead nowhere."""

    def __init__(self, top: Path) -> None:
        super().__init__(top)
        self.start_repository()
        self.environment |= {
            "PATH": f"{installed(top / 'cli')}:/usr/local/bin:/usr/bin:/bin",
            "ALLOWED_BINARIES": ",".join(VENDORS),
            "AGENTORCH_CONFIG_DIR": str(top / "etc"),
            "PROJECT_ALIASES": ",".join(f"{name}={self.repository}" for name in PROJECTS),
            "AGENTORCH_SELF_TEST": "0",
            "ANTHROPIC_API_KEY": KEY,
            "OPENAI_API_KEY": KEY,
            # nobody listens there
            "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
            "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        }
        self._projects = iter(PROJECTS)
        (top / "etc").mkdir()
        keys = (f"{variable}@{name}={KEY}\n" for variable in KEYS for name in PROJECTS)
        (top / "etc" / "keys.env").write_text("".join(keys))
        (top / "etc" / "keys.env").chmod(0o600)

    @contextmanager
    def broker(self) -> Iterator[None]:
        """One broker for all steps meanwhile, as where it is a unit of its own."""
        with client.running(self.top / "broker", self.environment) as path:
            self.environment["AGENTORCH_BROKER_SOCKET"] = str(path)
            yield
            del self.environment["AGENTORCH_BROKER_SOCKET"]

    def submit_all(self, steps: Iterable[dict[str, Any]]) -> list[str]:
        """Queues a job for each of these steps; their ids.

        Each is of a project with keys of its own: a limit of one's is none of the others'.
        """
        lines = [
            json.dumps({"goal": "a goal", "steps": [one], "project_id": next(self._projects)})
            for one in steps
        ]
        (self.top / "jobs.json").write_text("".join(f"{line}\n" for line in lines))
        return self.run("submit", str(self.top / "jobs.json")).stdout.split()

    def drain_all(self, slots: int = SLOTS, **variables: str) -> str:
        """Runners that work until nothing is left; what they said."""
        return self.drained(self.drain_soon(slots, **variables))

    def drain_soon(self, slots: int, **variables: str) -> list[subprocess.Popen[str]]:
        """The same, not waited for."""
        numbers = range(1, slots + 1)
        return [self.start("runner", "--drain", "--slot", str(n), **variables) for n in numbers]

    def drained(self, runners: list[subprocess.Popen[str]]) -> str:
        """Waits for the runners' end; what they said."""
        said = [runner.communicate(timeout=2 * TIMEOUT_S) for runner in runners]
        assert not any(runner.returncode for runner in runners), said
        return "".join(stderr for _, stderr in said)

    def result(self, job_id: str) -> dict[str, Any]:
        """The result of a job's only step."""
        text = (self.artifacts(job_id) / "steps" / "one" / "result.json").read_text()
        found: dict[str, Any] = json.loads(text)
        return found

    def home(self, job_id: str, vendor: str) -> Path:
        """The HOME of a job's only step."""
        return self.state / "workspaces" / job_id / "home" / vendor / "one"

    def queue_of(self, job_id: str) -> str:
        """The directory that a job's queue file is in."""
        (found,) = (self.state / "queue").rglob(f"*{job_id}.json")
        return found.parent.name


def installed(top: Path) -> Path:
    """The zoo's programs as a vendor would install them, on the Python of the tests."""
    prefix = top / "vendors"
    shutil.copytree(ZOO, prefix, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CORPORA, prefix / "corpora")
    program = prefix / "bin" / "vendor"
    _, newline, rest = program.read_text().partition("\n")
    program.write_text(f"#!{os.path.realpath(sys.executable)} -BES{newline}{rest}")
    compileall.compile_dir(prefix, quiet=1)
    return program.parent


def living(job_id: str) -> list[int]:
    """The processes that a job's agents left: HOME, which they all have, is below its id."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            variables = (directory / "environ").read_bytes().split(b"\0")
        except OSError:  # gone meanwhile
            continue
        if any(one.startswith(b"HOME=") and job_id.encode() in one for one in variables):
            found.append(int(directory.name))
    return found


def outcome(result: dict[str, Any]) -> tuple[str, str | None]:
    """The class of a result, and its error's code."""
    return result["outcome"], result["error"] and result["error"]["code"]
