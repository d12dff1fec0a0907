"""A queue of a row's own, with what its programs are to know, and a runner that works on it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from agentorch.contracts.accept import Document, ServerRules, accept
from agentorch.core.abilities import ANYTHING
from agentorch.core.job import Job
from agentorch.core.states import State
from agentorch.jobqueue.jobqueue import Queue
from agentorch.storage.paths import Roots
from agentorch.system.inotify import Event, Inotify, Mask

ROOT = Path(__file__).resolve().parents[2]
Accepted = tuple[Job, Document]
ENDS = (State.DONE, State.FAILED, State.AWAITING_APPROVAL)


def roots_in(directory: Path) -> Roots:
    """The three roots below one directory."""
    return Roots(
        directory / "queue",
        directory / "artifacts",
        directory / "workspaces",
        directory / "state.db",
    )


def accepted(now: datetime, scripts: Mapping[str, str], workdir: Path | None = None) -> Accepted:
    """A job whose steps are these scripts; without a workdir it starts with nothing."""
    document = {
        "goal": "measure",
        "source": {"type": "manual" if workdir else "webhook", "meta": {}},
        "workdir": str(workdir or "."),
        "steps": [
            {"step_id": name, "agent": "exec", "role": "script", "prompt": script}
            for name, script in scripts.items()
        ],
    }
    return accept(document, ServerRules({"exec": ANYTHING}, ()), now)


@dataclass(frozen=True)
class Site:
    """A state directory. `variables` are what its programs know besides."""

    directory: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def roots(self) -> Roots:
        return roots_in(self.directory)

    @property
    def queue(self) -> Queue:
        return Queue(self.roots)

    def environment(self) -> dict[str, str]:
        """Of its programs: real agents in the real sandbox, nothing said but errors."""
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT / "lib"),
            "AGENTORCH_ENV_FILE": "/dev/null",
            "AGENTORCH_STATE_DIR": str(self.directory),
            "ENABLE_REAL_CLI": "1",
            "ALLOWED_BINARIES": "sh",
            "LOG_LEVEL": "ERROR",
            **self.variables,
        }

    def command_argv(self, name: str, *words: str) -> list[str]:
        """An executable of this tree, under this very interpreter."""
        return [sys.executable, str(ROOT / "bin" / f"agentorch-{name}"), *words]

    @contextmanager
    def runner(self) -> Iterator[int]:
        """A runner that waits for jobs; its process id."""
        self.queue.prepare()
        with subprocess.Popen(self.command_argv("runner"), env=self.environment()) as process:
            try:
                self.work({"warm": "true"})
                yield process.pid
            finally:
                process.terminate()

    def work(self, scripts: Mapping[str, str], workdir: Path | None = None) -> Job:
        """Submits a job of scripts and returns at its end, which is to be a good one."""
        return self.worked(*accepted(datetime.now(UTC), scripts, workdir))

    def worked(self, job: Job, document: Document) -> Job:
        """Submits a job and returns at its end, which is to be a good one."""
        with Inotify() as ends:
            watches = {ends.watch(self.queue.paths.state(s), Mask.MOVED_TO): s for s in ENDS}
            self.queue.submit(job, document)
            end = next(watches[event.watch] for event in heard(ends) if event.name == str(job.key))
        if end is not State.DONE:
            result = self.roots.artifacts(job.job_id).result
            raise RuntimeError(f"a job that is measured ended in {end}: {result.read_text()}")
        return job


def heard(events: Inotify) -> Iterator[Event]:
    """Events as they come, for ever. Raises TimeoutError where none comes for a minute."""
    while True:
        if not select.select([events], [], [], 60)[0]:
            raise TimeoutError("the runner is silent")
        yield from events.read()
