"""Whole jobs through the real programs, in a state directory of the test's own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60


def step(step_id: str, script: str, **fields: Any) -> dict[str, Any]:
    """An exec step."""
    base = {"step_id": step_id, "agent": "exec", "role": "worker", "prompt": script}
    return {**base, "max_retries": 0, "retry_backoff_sec": 0, **fields}


class Installation:
    """A state directory, a repository, and the programs on them."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.state = top / "state"
        self.repository = top / "repository"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(top),
            "AGENTORCH_STATE_DIR": str(self.state),
            "ENABLE_REAL_CLI": "1",
            "ALLOWED_BINARIES": "sh",
            "AGENTORCH_CONFIG_DIR": str(top),
        }
        self.started: list[subprocess.Popen[str]] = []

    def start_repository(self) -> None:
        """A repository with one file."""
        self.repository.mkdir()
        self.git("init", "-q", "-b", "main")
        (self.repository / "README").write_text("hello\n")
        self.git("add", "README")
        self.git("commit", "-qm", "first")

    def argv(self, name: str, *arguments: str) -> list[str]:
        return [sys.executable, str(ROOT / "bin" / f"agentorch-{name}"), *arguments]

    def run(
        self, name: str, *arguments: str, given: str = "", code: int | None = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end; its exit code is checked unless `code` is None."""
        done = subprocess.run(
            self.argv(name, *arguments),
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            cwd=self.repository,
            env=self.environment | variables,
        )
        assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def start(self, name: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Starts a program that is ended with the test."""
        process = subprocess.Popen(
            self.argv(name, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.repository,
            env=self.environment | variables,
        )
        self.started.append(process)
        return process

    def submit(self, *steps: dict[str, Any], **fields: Any) -> str:
        """Queues a job of these steps; its id."""
        document = {"goal": "a goal", "steps": list(steps), **fields}
        return self.run("submit", "-", given=json.dumps(document)).stdout.strip()

    def drain(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """A runner that works until nothing is left."""
        return self.run("runner", "--drain", given="", code=0, **variables)

    def status(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", job_id).stdout)
        return found

    def artifacts(self, job_id: str) -> Path:
        return self.state / "artifacts" / job_id

    def work(self, job_id: str) -> Path:
        return self.state / "workspaces" / job_id / "work"

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        return subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments],
            cwd=cwd or self.repository,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=TIMEOUT_S)


def processes_with(marker: str, file: str = "cmdline") -> list[int]:
    """The processes but us that hold this word in their command line or their `environ`."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (directory / file).read_bytes()
            if marker.encode() in words and int(directory.name) != os.getpid():
                found.append(int(directory.name))
    return found


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(tmp_path)
    installation.start_repository()
    yield installation
    installation.close()
