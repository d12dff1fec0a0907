"""agentorch-submit: queues jobs; their ids are the answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from agentorch.agents.registry import load
from agentorch.commands.base import (
    caller_fields,
    load_settings,
    note,
    print_json,
    print_line,
    program,
)
from agentorch.commands.wait_loop import wait_for
from agentorch.config.settings import Settings
from agentorch.contracts.accept import Document, ServerRules, accept
from agentorch.contracts.parse import parse
from agentorch.core.errors import Duplicate, Exit, Invalid
from agentorch.core.job import Job, Network
from agentorch.core.text import one_line
from agentorch.jobqueue.jobqueue import Queue
from agentorch.systemd.message_ids import Message

MOST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Given:
    """A document, and where it was read from."""

    name: str
    document: Any


@program()
@click.argument(
    "files",
    metavar="[FILE]...",
    nargs=-1,
    type=click.Path(readable=False, allow_dash=True),  # what TABs are told; open(2) judges it
)
@click.option("--goal", help="Submit a job with this goal and the default pipeline.")
@click.option("--project", metavar="ID", help="Work on this project of PROJECT_ALIASES.")
@click.option(
    "--priority",
    type=click.IntRange(0, 9),
    metavar="0-9",
    help="0 is claimed first; default 5.",
)
@click.option(
    "--wait",
    is_flag=True,
    help="Wait for the end (a runner must be there); exit as agentorch-wait does.",
)
@click.option("--json", "as_json", is_flag=True, help="Answer with one object a line.")
def main(
    files: tuple[str, ...],
    goal: str | None,
    project: str | None,
    priority: int | None,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    """Queue jobs from FILEs (- is standard input): JSON objects, or JSON lines.

    The smallest is {"goal": "…"}. All documents are checked before the first is queued. An id is
    printed when its job is on the disk and will survive a power cut; agentorch-runner then works
    on it.
    """
    if not files and goal is None:
        raise click.UsageError("give a FILE, - for standard input, or --goal")
    settings = load_settings()
    given = list(_read_inputs(files, goal))
    changes = {"project_id": project, "priority": priority}
    accepted = _accept(given, {k: v for k, v in changes.items() if v is not None}, settings)
    queue = Queue(settings.roots)
    queue.prepare()
    ids, refused = _submit(queue, accepted, settings, as_json=as_json)
    code = wait_for(queue, ids) if wait else Exit.DONE
    click.get_current_context().exit(Exit.USAGE if refused else code)


def _read_inputs(files: Sequence[str], goal: str | None) -> Iterator[Given]:
    problems: list[str] = []
    if goal is not None:
        yield Given("--goal", {"goal": goal})
    for name in files:
        try:
            yield from _documents("standard input" if name == "-" else name, _content(name))
        except Invalid as invalid:
            problems += invalid.problems
    if problems:
        raise Invalid(problems)


def _content(name: str) -> bytes:
    try:
        with sys.stdin.buffer if name == "-" else Path(name).open("rb") as file:
            content: bytes = file.read(MOST_BYTES + 1)
    except OSError as problem:
        raise Invalid([f"{name}: {problem.strerror}"]) from problem
    if len(content) > MOST_BYTES:
        raise Invalid([f"{name}: larger than {MOST_BYTES} bytes: give it in parts"])
    return content


def _documents(name: str, content: bytes) -> Iterator[Given]:
    """One document, or one a line where the first line is a whole one and there are more."""
    lines = content.split(b"\n")
    several = [(n, line) for n, line in enumerate(lines, 1) if line.strip()]
    if len(several) > 1 and _is_whole(several[0][1]):
        for number, line in several:
            place = f"{name}: line {number}"
            yield Given(place, _parse(place, line))
    else:
        yield Given(name, _parse(name, content))


def _is_whole(line: bytes) -> bool:
    try:
        parse(line)
    except Invalid:
        return False
    return True


def _parse(name: str, content: bytes) -> Any:
    try:
        return parse(content)
    except Invalid as invalid:
        raise Invalid([f"{name}: {problem}" for problem in invalid.problems]) from invalid


def _accept(
    given: Sequence[Given], changes: Document, settings: Settings
) -> list[tuple[Job, Document]]:
    agents = load(settings)
    door = ServerRules(agents.abilities(), tuple(settings.project_aliases), settings.allowed_hosts)
    accepted, problems = [], []
    for one in given:
        try:
            document = one.document
            if isinstance(document, dict):
                document = {**_from_here(document), **changes}
            job, complete = accept(document, door, datetime.now(UTC))
            _check_workdir(job)
            accepted.append((job, complete))
        except Invalid as invalid:
            problems += [f"{one.name}: {problem}" for problem in invalid.problems]
    if problems:
        raise Invalid(problems)
    return accepted


def _check_workdir(job: Job) -> None:
    """By now we are who will run the job: what we can't read, no step of it can be given."""
    if job.project_id is not None:
        return
    if not Path(job.workdir).is_dir():
        raise Invalid([f".workdir: {job.workdir!r} is not a directory"])
    if os.path.samefile(job.workdir, "/"):
        raise Invalid([".workdir: '/' is the whole machine: name a project's directory"])
    if not os.access(job.workdir, os.R_OK | os.X_OK):
        words = f"can't be read by uid {os.geteuid()}, which runs the jobs here"
        raise Invalid([f".workdir: {job.workdir!r} {words}"])


def _from_here(document: Document) -> Document:
    """Return a relative workdir is the submitter's: the runner works somewhere else."""
    workdir = document.get("workdir", ".")
    if not isinstance(workdir, str) or not workdir or "\0" in workdir:
        return document
    return {**document, "workdir": str(Path.cwd() / workdir)}


def _submit(
    queue: Queue, accepted: Sequence[tuple[Job, Document]], settings: Settings, *, as_json: bool
) -> tuple[list[str], bool]:
    ids, refused = [], False
    for job, document in accepted:
        try:
            state = queue.submit(job, document, floor_bytes=settings.min_free_disk_bytes)
        except Duplicate as problem:
            print_line(str(problem))
            note(f"not queued: {problem}", Message.REFUSED, **_place(job), **caller_fields())
            refused = True
            continue
        ids.append(job.job_id)
        _note_submitted(job, state)
        if job.policy.network is Network.ALLOW and settings.network is Network.DENY:
            print_line(
                f"{job.job_id}: the server denies the network (NETWORK_POLICY): the job has none"
            )
        if as_json:
            print_json({"job_id": job.job_id, "state": state})
        else:
            click.echo(job.job_id)
    return ids, refused


def _note_submitted(job: Job, state: str) -> None:
    by = caller_fields()
    steps = one_line(", ".join(f"{step.step_id} ({step.agent})" for step in job.steps))
    text = f"submitted by {by['who']}, {state}: {steps}"
    note(text, Message.SUBMITTED, **_place(job), **by, state=state, source=job.source_type)


def _place(job: Job) -> Document:
    return {"job": job.job_id, "project": job.project_id}
