"""The executables as they are, on a state directory of the test's own.

A `Site` can be copied as it lies, hard links and all: what a crash left is prepared once and tried
often. The one place that knows how a program is started.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agentorch.jobqueue.jobqueue import Queue
from agentorch.storage.paths import Roots
from tests.support.warm import Warm, shared, warmed

REPOSITORY = Path(__file__).parents[2]
LIB = REPOSITORY / "lib"
SHM = Path("/dev/shm")
TIMEOUT_S = 120
AT_ONCE = os.cpu_count() or 1


@dataclass(frozen=True)
class Ended:
    """How a program ended; a code below zero is the signal that killed it."""

    code: int
    out: str
    err: str

    @property
    def ids(self) -> list[str]:
        """What it acknowledged: the whole lines on its stdout."""
        return self.out.split("\n")[:-1]


@dataclass(frozen=True)
class Site:
    """A state directory below `top`, and the package in `lib` that works on it."""

    top: Path
    lib: Path = LIB
    state: Path = Path()
    variables: tuple[tuple[str, str], ...] = ()
    warm: Warm | None = None
    started: list[subprocess.Popen[str]] = field(default_factory=list, compare=False)

    @property
    def state_directory(self) -> Path:
        return self.top / "state" if self.state == Path() else self.state

    @property
    def here(self) -> Path:
        """Where the programs are started, and so what the jobs work on: an empty directory."""
        here = self.top / "here"
        here.mkdir(exist_ok=True)
        return here

    @property
    def roots(self) -> Roots:
        state = self.state_directory
        return Roots(state / "queue", state / "artifacts", state / "workspaces", state / "state.db")

    @property
    def queue(self) -> Queue:
        return Queue(self.roots)

    def environment(self) -> dict[str, str]:
        """The same for every start, so that two starts make the same calls."""
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.top),
            "PYTHONPATH": str(self.lib),
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "AGENTORCH_STATE_DIR": str(self.state_directory),
            "AGENTORCH_CONFIG_DIR": str(self.top),
            "AGENTORCH_LAUNCHER": "fork",
            "AGENTORCH_MIN_FREE_BYTES": "0",
            "ALLOWED_BINARIES": "sh",
            "RUNNER_POLL_INTERVAL_SEC": "0.05",
            "WORKER_ENTRYPOINT_GROUP": "",
            **dict(self.variables),
        }

    def with_variables(self, **variables: str) -> Site:
        """The same with some variables set."""
        return replace(self, variables=(*self.variables, *variables.items()))

    def run(self, name: str, *arguments: str, stdin: str = "", under: Sequence[str] = ()) -> Ended:
        """Runs a program to its end: `under` another where one is given, else warm where it can."""
        if self.warm is not None and not under and not is_ours(name):
            return self._run_warm(self.warm, name, arguments, stdin)
        with self.start(name, *arguments, under=under) as process:
            try:
                out, err = process.communicate(stdin, TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Ended(process.returncode, out, err)

    def _run_warm(self, warm: Warm, name: str, arguments: Sequence[str], stdin: str) -> Ended:
        with tempfile.TemporaryDirectory(dir=self.top) as scratch:
            streams = {stream: Path(scratch) / stream for stream in ("stdin", "stdout", "stderr")}
            streams["stdin"].write_text(stdin)
            wish = {
                "name": name,
                "arguments": arguments,
                "environment": self.environment(),
                "cwd": str(self.here),
                **{stream: str(path) for stream, path in streams.items()},
            }
            code = warm.run(wish, TIMEOUT_S)
            return Ended(code, streams["stdout"].read_text(), streams["stderr"].read_text())

    def start(
        self,
        name: str,
        *arguments: str,
        under: Sequence[str] = (),
        stderr: int = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """Starts a program; whoever calls this waits for its end."""
        process = subprocess.Popen(
            [*under, *program_argv(name, *arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=self.here,
            env=self.environment(),
        )
        self.started.append(process)
        return process

    def end_all(self) -> None:
        """Ends what a test that failed left behind."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def submit(self, *documents: dict[str, Any]) -> list[str]:
        """Queues jobs; their ids."""
        ended = self.run("submit", "-", stdin="\n".join(json.dumps(d) for d in documents))
        assert ended.code == 0, ended
        return ended.ids

    def recover(self, slot: str = "recovery") -> list[str]:
        """What is done after a crash; what went wrong with it."""
        reclaimed = self.run("reclaim", "--stale-after-sec", "0")
        drained = self.run("runner", "--drain", "--slot", slot)
        return [f"recovery: {e.code} {e.err}" for e in (reclaimed, drained) if e.code != 0]

    def copy(self) -> Site:
        """The same beside it: a copy of everything, hard links kept."""
        top = Path(tempfile.mkdtemp(dir=self.top.parent)) / "site"
        copy_argv = ["cp", "-a", "--", str(self.top), str(top)]
        subprocess.run(copy_argv, check=True)
        return replace(self, top=top)


def program_argv(name: str, *arguments: str) -> list[str]:
    """The command line of an executable, or of a program that is beside this file."""
    here = Path(__file__).parents[1] / "crash" / name
    program = here if is_ours(name) else REPOSITORY / "bin" / f"agentorch-{name}"
    return [sys.executable, str(program), *arguments]


def is_ours(name: str) -> bool:
    """Whether it is a program of these tests."""
    return name.endswith(".py")


@contextmanager
def site_in_memory(lib: Path = LIB) -> Iterator[Site]:
    """An empty site where fsync is quick: a killed process loses nothing that it wrote."""
    with (
        tempfile.TemporaryDirectory(prefix="agentorch-crash-", dir=memory()) as top,
        # another package than this tree's is gone after its test
        nullcontext(shared(lib, AT_ONCE)) if lib == LIB else warmed(lib, AT_ONCE) as warm,
    ):
        site = Site(Path(top) / "site", lib, warm=warm)
        site.top.mkdir()
        try:
            yield site
        finally:
            site.end_all()


def memory() -> Path | None:
    """A directory in memory, None where there is none (the usual place is used)."""
    return SHM if SHM.is_dir() and os.access(SHM, os.W_OK) else None


def remove(site: Site) -> None:
    """Takes a copy away."""
    shutil.rmtree(site.top.parent)


def job(job_id: str, *prompts: str, **fields: Any) -> dict[str, Any]:
    """A job of exec steps with these scripts, `step1` and so on, that are not tried again."""
    steps = [
        {
            "step_id": f"step{number}",
            "agent": "exec",
            "role": "worker",
            "prompt": prompt,
            "max_retries": 0,
            "retry_backoff_sec": 0,
        }
        for number, prompt in enumerate(prompts or ("true", "true"), 1)
    ]
    return {"goal": "survive", "job_id": job_id, "steps": steps, **fields}
