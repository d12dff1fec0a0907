"""Decisions on a job: the record of who decided what, and the lock under which one is taken.

    artifacts/ID/.lock              flock held while state is checked and the line is written
    artifacts/ID/decisions.jsonl    {when, who: {uid, name} or {token}, what, comment, shown, …},
                                    appended, fsynced
    artifacts/ID/cancel             the marker by which a decision reaches the job's owner
    artifacts/ID/hold               another: {who, reason, when}
    artifacts/ID/keep               the same for retention

The line is durable before the act. No decision expires by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from agentorch.core.errors import Damaged, UnknownJob
from agentorch.core.pipeline import Finish
from agentorch.core.states import Status
from agentorch.core.text import one_line
from agentorch.core.times import rfc3339
from agentorch.storage import atomic
from agentorch.storage.locks import hold_lock
from agentorch.storage.paths import ArtifactPaths


@contextlib.contextmanager
def deciding(paths: ArtifactPaths) -> Iterator[None]:
    """Hold the lock under which decisions on a job are taken.

    The others wait, and then see what was decided.

    Raises UnknownJob where its artifacts are gone by now.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(hold_lock(paths.lock, wait=True))
        except FileNotFoundError as problem:
            raise UnknownJob(f"no job {paths.directory.name!r} any more") from problem
        yield


def record(
    paths: ArtifactPaths, what: str, now: datetime, by: Mapping[str, Any], **more: Any
) -> None:
    """Append a decision; durable when it returns."""
    line = {"when": rfc3339(now), "who": dict(by), "what": what, **more}
    atomic.append_line(
        paths.decisions, json.dumps(line, ensure_ascii=False).encode("utf-8", "replace")
    )


def decisions(paths: ArtifactPaths) -> list[dict[str, Any]]:
    """Every decision on the job, oldest first; a line that is none is left out."""
    try:
        lines = paths.decisions.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except IsADirectoryError as problem:
        raise _directory(paths.decisions) from problem
    found = []
    for line in filter(None, lines):
        # A power cut may tear the last line; it is durable before anybody acts, so a torn one was
        # not acted on. The next decision closes it (atomic.append_line).
        with contextlib.suppress(ValueError, RecursionError):  # torn: it was not acted on
            found.append(json.loads(line))
    return [line for line in found if _is_decision(line)]


def _is_decision(line: Any) -> bool:
    kinds = {"what": str, "when": str, "who": dict}
    return isinstance(line, dict) and all(isinstance(line.get(k), v) for k, v in kinds.items())


def current_user() -> dict[str, Any]:
    """Return who runs this: the user who became root or the service user, where sudo names one."""
    named = os.environ.get("SUDO_UID", "")
    uid = int(named) if named.isascii() and named.isdigit() else os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a uid without a name
        name = str(uid)
    return {"uid": uid, "name": name}


def name_of(by: Mapping[str, Any]) -> str:
    """Return who that is, for people: a name, or the hash of a token. Pure."""
    return str(by.get("name") or by.get("token") or "somebody")


_TOLD = {
    "approve": "approved it",
    "reject": "rejected it",
    "answer": "answered it",
    "retry": "retried it",
    "cancel": "cancelled it",
    "unlock": "unlocked it",
    "hold": "held it back",
    "release": "released it",
    "keep": "pinned it",
    "unkeep": "unpinned it",
    "edit": "edited it",
    "priority": "changed its priority",
}


def decision_text(line: Mapping[str, Any]) -> str:
    """Return a decision in words: who, what and when. Pure."""
    what = str(line["what"])
    return f"{name_of(line['who'])} {_TOLD.get(what, what)} at {line['when']}"


def rejection(line: Mapping[str, Any]) -> Finish:
    """Return the end of a job that was rejected in this line. Pure."""
    words = f"rejected by {name_of(line['who'])}"
    comment = one_line(str(line["comment"]))
    return Finish(Status.FAILED, "rejected", f"{words}: {comment}" if comment else words)


def shown_hash(paths: ArtifactPaths) -> str:
    """Return the SHA-256 (hex) of what there is to be seen of a job: the same until something
    changes.

    That is the job as it is by now, its state, and its result, report and patch.
    """
    document = paths.edited_job if paths.edited_job.exists() else paths.job
    digest = hashlib.sha256()
    for path in (document, paths.state, paths.result, paths.report, paths.patch):
        digest.update(f"{path.name}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, `-` where there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "-"
    except IsADirectoryError as problem:
        raise _directory(path) from problem


def _directory(path: Path) -> Damaged:
    return Damaged(f"{path}: damaged: it is a directory")


def mark_cancelled(paths: ArtifactPaths) -> None:
    """Leave the marker that ends the job at its owner; durable when it returns."""
    paths.cancel.touch(0o640)
    atomic.sync_directory(paths.directory)


def mark(marker: Path, by: Mapping[str, Any] | None, reason: str, now: datetime) -> None:
    """Leave a marker that says who wants it, and why; durable when it returns."""
    atomic.replace_json(marker, {"who": by, "reason": reason, "when": rfc3339(now)})


def unmark(marker: Path) -> None:
    """Take a marker away; durable when it returns."""
    marker.unlink(missing_ok=True)
    atomic.sync_directory(marker.parent)
