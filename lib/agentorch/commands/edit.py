"""agentorch-edit: changes the remaining steps of a waiting job."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

from agentorch.agents.registry import load
from agentorch.artifacts import decision_log
from agentorch.artifacts.directory import JobArtifacts
from agentorch.commands.base import load_settings, print_line, program
from agentorch.commands.decision import HASH, decide
from agentorch.config.settings import Settings
from agentorch.contracts.accept import ServerRules
from agentorch.contracts.parse import parse
from agentorch.core.errors import Invalid
from agentorch.core.job import Job
from agentorch.core.states import State
from agentorch.decisions.edit import edit, merge_edit, remaining, renumber_problems
from agentorch.jobqueue.jobqueue import Queue
from agentorch.jobqueue.lookup import find
from agentorch.storage import atomic
from agentorch.storage.json_files import Document


@dataclass(frozen=True)
class Before:
    """A job before it is edited: its document, how many steps are over, the hash of all of it,
    and where it was.
    """

    document: Document
    over: int
    hash: str
    state: State | None

    def text(self) -> bytes:
        """Return what may be edited of it."""
        return atomic.encode(remaining(self.document, self.over))


@program()
@click.argument("job_ref", metavar="ID")
@click.option("--file", "path", metavar="FILE", help="Read from this file what it is to be.")
@HASH
def main(job_ref: str, path: str | None, shown: str | None) -> None:
    """Change the remaining steps of a waiting job, and what the job may cost.

    Opens them in $VISUAL or $EDITOR; without a terminal they are read from standard input. They
    are checked as those of a new job are. job.json stays what was submitted.
    """
    settings = load_settings()
    queue = Queue(settings.roots)

    def edit_one(job_ref: str) -> Job:
        before = _read_before(queue, job_ref)
        kept, content = _new_document(before, path)
        try:
            wanted = merge_edit(before.document, before.over, parse(content))
            job = edit(
                queue,
                job_ref,
                wanted,
                _door(settings),
                shown=shown or before.hash,
                seen=before.state,
            )
        except Invalid as invalid:
            if kept is not None:
                print_line(f"what you wrote is in {kept}: give it again with --file")
            raise Invalid(renumber_problems(invalid.problems, before.over)) from invalid
        if kept is not None:
            kept.unlink()
        return job

    decide(queue, "edit", [job_ref], edit_one)


def _read_before(queue: Queue, job_ref: str) -> Before:
    """Return the job as it is; what changes after the hash was made is found out."""
    paths = queue.roots.artifacts(find(queue, job_ref).job.job_id)
    seen = decision_log.shown_hash(paths)
    found, state = find(queue, paths.directory.name), JobArtifacts(paths).read_state()
    over = 0 if state is None else found.job.index(state.progress.current)
    return Before(found.document, over, seen, found.state)


def _door(settings: Settings) -> ServerRules:
    agents = load(settings).abilities()
    return ServerRules(agents, tuple(settings.project_aliases), settings.allowed_hosts)


def _new_document(before: Before, path: str | None) -> tuple[Path | None, bytes]:
    """Return what the job is to be; and the file of the user's own work, where an editor was
    opened.
    """
    if path is not None:
        try:
            return None, Path(path).read_bytes()
        except OSError as problem:
            raise Invalid([f"{path}: {problem.strerror}"]) from problem
    if not sys.stdin.isatty():
        return None, sys.stdin.buffer.read()
    return _from_editor(before)


def _from_editor(before: Before) -> tuple[Path, bytes]:
    with tempfile.NamedTemporaryFile(
        prefix="agentorch-edit-", suffix=".json", delete=False
    ) as file:
        file.write(before.text())
    kept = Path(file.name)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "editor"
    try:
        ended = subprocess.run([*shlex.split(editor), file.name], check=False)
    except (OSError, ValueError) as problem:
        kept.unlink()
        raise Invalid([f"{editor!r} can't be run: set $EDITOR, or use --file"]) from problem
    if ended.returncode != 0:
        kept.unlink()
        raise Invalid([f"{editor!r} ended with {ended.returncode}: nothing was changed"])
    try:
        return kept, kept.read_bytes()
    except OSError as problem:
        words = f"{editor!r} left no file: {problem.strerror}: nothing was changed"
        raise Invalid([words]) from problem
