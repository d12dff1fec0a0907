"""agentorch-logs: what the steps of a job printed."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import click

from agentorch.artifacts.directory import JobArtifacts
from agentorch.commands.base import ids, open_queue, program, with_ids
from agentorch.config.settings import load
from agentorch.core.errors import Misconfigured, UnknownJob
from agentorch.core.states import State
from agentorch.core.text import printable
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import Found, find
from agentorch.storage.paths import AttemptPaths
from agentorch.system.inotify import Inotify, Mask


@program()
@with_ids
@click.option("--step", "step_id", metavar="STEP", help="The logs of this step alone.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--journal", is_flag=True, help="Show what all programs said of them: the journal.")
def main(
    job_refs: tuple[str, ...],
    jobs: tuple[str, ...],
    step_id: str | None,
    *,
    follow: bool,
    journal: bool,
) -> None:
    """Print the logs of jobs, step by step, redacted; of each step its latest attempt.

    With --journal it becomes journalctl(1), which goes on until it is interrupted when it follows.
    """
    # the service user may not read the journal: root stays root for it
    queue = Queue(load().roots) if journal else open_queue()
    wanted = [_find_job(queue, job_ref, step_id) for job_ref in ids(job_refs, jobs)]
    if journal:
        _become(journal_argv([found.job.job_id for found in wanted], step_id, follow=follow))
    for found in wanted:
        if follow:
            Follower(queue, found, step_id).run()
        else:
            for path in _attempts(queue, found, step_id):
                _show(path.read_bytes())


def _find_job(queue: Queue, job_ref: str, step_id: str | None) -> Found:
    found = find(queue, job_ref)
    if step_id is not None and step_id not in {step.step_id for step in found.job.steps}:
        raise UnknownJob(f"job {found.job.job_id} has no step {step_id!r}")
    return found


def journal_argv(jobs: Sequence[str], step_id: str | None, *, follow: bool) -> tuple[str, ...]:
    """Return the command line that shows the journal's entries of jobs. Pure.

    Matches of one field are alternatives, of two fields both must hold (journalctl(1)).
    """
    return (
        "journalctl",
        *(("--follow", "--lines=all") if follow else ()),
        *(f"AGENTORCH_JOB={job_id}" for job_id in dict.fromkeys(jobs)),
        *(() if step_id is None else (f"AGENTORCH_STEP={step_id}",)),
    )


def _become(argv: tuple[str, ...]) -> NoReturn:
    """Becomes another program. Raises Misconfigured where there is none."""
    try:
        os.execvp(argv[0], argv)
    except OSError as problem:
        words = f"{argv[0]}: {problem.strerror}: without --journal the artifacts are shown"
        raise Misconfigured(words) from problem


def _attempts(queue: Queue, found: Found, step_id: str | None) -> Iterator[Path]:
    """Yield the log of the latest attempt of each step that has one, in the order of the steps."""
    paths = queue.roots.artifacts(found.job.job_id)
    state = JobArtifacts(paths).read_state()
    for step in found.job.steps:
        attempt = state.progress.step(step.step_id).attempt if state is not None else 0
        at: AttemptPaths = paths.step(step.step_id).attempt(attempt)
        if step_id in (None, step.step_id) and at.logs.exists():
            yield at.logs


class Follower:
    """Prints what is there, and then what comes, until the job has ended."""

    def __init__(self, queue: Queue, found: Found, step_id: str | None) -> None:
        self._queue = queue
        self._found = found
        self._step_id = step_id
        self._shown: dict[Path, int] = {}

    def run(self) -> None:
        """Wait for events only: a log that grows, a step that starts, a job that ends."""
        artifacts = self._queue.roots.artifacts(self._found.job.job_id)
        with Inotify() as events:
            events.watch(artifacts.directory, Mask.MOVED_TO | Mask.CREATE)
            for state in State:
                events.watch(self._queue.paths.state(state), Mask.MOVED_TO)
            while True:
                ended = find(self._queue, self._found.job.job_id).state not in (
                    State.PENDING,
                    State.RUNNING,
                )
                self._show_new(events)
                if ended:
                    return
                select.select([events], [], [])
                list(events.read())

    def _show_new(self, events: Inotify) -> None:
        for path in _attempts(self._queue, self._found, self._step_id):
            if path not in self._shown:
                events.watch(path, Mask.MODIFY)
                self._shown[path] = 0
            with path.open("rb") as file:
                file.seek(self._shown[path])
                content = file.read()
            self._shown[path] += len(content)
            _show(content)


def _show(content: bytes) -> None:
    if sys.stdout.isatty():
        lines = content.decode("utf-8", "replace").split("\n")
        click.echo("\n".join(printable(line) for line in lines), nl=False)
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
