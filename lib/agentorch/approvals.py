"""Decisions on a job: the record of who decided what, and the lock under which one is taken.

    artifacts/ID/.lock              flock held while state is checked and the line is written
    artifacts/ID/decisions.jsonl    {when, who: {uid, name}, what, comment, …}, appended, fsynced
    artifacts/ID/cancel             the marker by which a decision reaches the job's owner

The line is durable before the act. No decision expires by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from agentorch import atomic
from agentorch.errors import UnknownJob
from agentorch.jobqueue import flocked
from agentorch.paths import ArtifactPaths
from agentorch.times import rfc3339


@contextlib.contextmanager
def deciding(paths: ArtifactPaths) -> Iterator[None]:
    """Nobody else decides on this job meanwhile. The others wait, and then see what was decided.

    Raises UnknownJob where its artifacts are gone by now.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(flocked(paths.lock, wait=True))
        except FileNotFoundError as problem:
            raise UnknownJob(f"no job {paths.directory.name!r} any more") from problem
        yield


def record(paths: ArtifactPaths, what: str, now: datetime, **more: Any) -> None:
    """Appends a decision; durable when it returns."""
    line = {"when": rfc3339(now), "who": who(), "what": what, **more}
    atomic.append_line(
        paths.decisions, json.dumps(line, ensure_ascii=False).encode("utf-8", "replace")
    )


def decisions(paths: ArtifactPaths) -> list[dict[str, Any]]:
    """Every decision on the job, oldest first; a line that a crash tore is left out."""
    try:
        lines = paths.decisions.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for line in filter(None, lines):
        try:
            found.append(json.loads(line))
        except ValueError:  # torn by a power cut: its decision was never acted on
            continue
    return found


def who() -> dict[str, Any]:
    """Who runs this: the user who became root or the service user, where sudo names one."""
    named = os.environ.get("SUDO_UID", "")
    uid = int(named) if named.isascii() and named.isdigit() else os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a uid without a name
        name = str(uid)
    return {"uid": uid, "name": name}


def mark_cancelled(paths: ArtifactPaths) -> None:
    """Leaves the marker that ends the job at its owner; durable when it returns."""
    paths.cancel.touch(0o640)
    atomic.sync_directory(paths.directory)


def unmark_cancelled(paths: ArtifactPaths) -> None:
    """Takes the marker away; durable when it returns."""
    paths.cancel.unlink(missing_ok=True)
    atomic.sync_directory(paths.directory)
