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
@click.option("--journal", is_flag=True, help="Show the journal's entries about them instead.")
@click.option("--json", "as_json", is_flag=True, help="With --journal: a JSON object an entry.")
def main(
    job_refs: tuple[str, ...],
    jobs: tuple[str, ...],
    step_id: str | None,
    *,
    follow: bool,
    journal: bool,
    as_json: bool,
) -> None:
    """Print the logs of jobs, step by step, redacted; of each step its latest attempt.

    With --journal it becomes journalctl(1); with --follow or --json as well it reads the journal
    itself, and ends with the jobs.
    """
    if as_json and not journal:
        raise click.UsageError("--json goes with --journal")
    # the service user may not read the journal: root stays root for it
    queue = Queue(load().roots) if journal else open_queue()
    wanted = [_find_job(queue, job_ref, step_id) for job_ref in ids(job_refs, jobs)]
    if journal:
        job_ids = list(dict.fromkeys(found.job.job_id for found in wanted))
        if not follow and not as_json:
            _become(journal_argv(job_ids, step_id))
        _show_journal(queue, job_ids, step_id, follow=follow, as_json=as_json)
        return
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


def journal_argv(job_ids: Sequence[str], step_id: str | None) -> tuple[str, ...]:
    """Return the command line that shows the journal's entries of jobs. Pure.

    Matches of one field are alternatives, of two fields both must hold (journalctl(1)).
    """
    return (
        "journalctl",
        *(f"AGENTORCH_JOB={job_id}" for job_id in job_ids),
        *(() if step_id is None else (f"AGENTORCH_STEP={step_id}",)),
    )


def _become(argv: tuple[str, ...]) -> NoReturn:
    """Become another program. Raises Misconfigured where there is none."""
    try:
        os.execvp(argv[0], argv)
    except OSError as problem:
        words = f"{argv[0]}: {problem.strerror}: without --journal the artifacts are shown"
        raise Misconfigured(words) from problem


def _show_journal(
    queue: Queue, job_ids: Sequence[str], step_id: str | None, *, follow: bool, as_json: bool
) -> None:
    """Print the journal's entries of jobs, as they come; to their end where it follows."""
    from agentorch.systemd import reader  # noqa: PLC0415  (for --journal alone)

    display = reader.entry_json if as_json else reader.entry_line
    entries = reader.JournalReader(job_ids, step_id)

    def show(entry: reader.Entry) -> None:
        click.echo(display(entry))

    if not follow:
        for entry in entries:
            show(entry)
        return
    with Inotify() as events:
        _watch_states(queue, events)

        def have_ended() -> bool:
            list(events.read())
            return all(_has_ended(queue, job_id) for job_id in job_ids)

        reader.follow(entries, show, have_ended, job_ids, events)


def _watch_states(queue: Queue, events: Inotify) -> None:
    for state in State:
        directory = queue.paths.state(state)
        if directory.is_dir():
            events.watch(directory, Mask.MOVED_TO)


def _has_ended(queue: Queue, job_id: str) -> bool:
    """Return whether nobody works on a job, nor will without a decision, an event or a time."""
    return find(queue, job_id).state not in (State.PENDING, State.RUNNING)


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
    """The logs of a job: what is there, and then what comes, until it has ended."""

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
            _watch_states(self._queue, events)
            while True:
                ended = _has_ended(self._queue, self._found.job.job_id)
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
