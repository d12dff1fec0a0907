"""The source of a workspace, and the failures of reading it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentorch.core.job import Job
from agentorch.storage import atomic
from agentorch.storage.untrusted_tree import WorkspaceTrouble


@dataclass(frozen=True)
class Source:
    """The source of a workspace. `path` is absolute; None goes with `empty`, and only with it."""

    kind: Literal["empty", "git", "copy"]
    path: Path | None = None


def source_of(job: Job, aliases: Mapping[str, Path], cwd: Path) -> Source:
    """Return the source that a job means (CONTRACT, section 6). Raises WorkspaceTrouble."""
    if job.project_id is not None:
        if job.project_id not in aliases:
            problem = f"project {job.project_id!r} is not in PROJECT_ALIASES"
            raise WorkspaceTrouble("source_missing", problem)
        return source_at(aliases[job.project_id])
    if job.source_type == "webhook" or (job.source_type == "cron" and job.workdir == "."):
        return Source("empty")
    return source_at(cwd / job.workdir)


def source_at(path: Path) -> Source:
    """Return the source that a directory is: a repository, bare or not, is cloned, else it is
    copied.
    """
    place = Path(os.path.abspath(path))
    bare = (place / "HEAD").is_file() and (place / "objects").is_dir() and (place / "refs").is_dir()
    return Source("git" if bare or os.path.lexists(place / ".git") else "copy", place)


@contextmanager
def reading(source: Path) -> Iterator[None]:
    """Turn an OSError about the source into WorkspaceTrouble; a full disk is another matter."""
    try:
        with atomic.disk_trouble(source):
            yield
    except FileNotFoundError as problem:
        words = f"{_name(problem, source)}: there is no such file or directory"
        raise WorkspaceTrouble("source_missing", words) from problem
    except OSError as problem:
        words = f"{_name(problem, source)}: {problem.strerror}"
        raise WorkspaceTrouble("source_unreadable", words) from problem


def _name(problem: OSError, source: Path) -> str:
    return os.fsdecode(problem.filename) if problem.filename is not None else str(source)
