"""The record of a run: what a job consisted of when it ended, as hashes.

    artifacts/ID/manifest.json      files: {path: {bytes, sha256}}, decisions, base, agents
    artifacts/ID/manifest.json.sig  its signature, where a key is configured (see signing)

It is written by the job's owner when everything else of the end is there, before state.json is
final: an owner that died before that writes both again. state.json's own hash is that of the
bytes that are about to be written. Keys are sorted, so the same run has the same record.

Decisions go on after the end (who retried it, and why), so of decisions.jsonl the length and the
hash of what was there are kept: lines may be added, none may change. Where later ones say that the
job was edited, job.edited.json is held against the last of these rather than against the record.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, cast

from agentorch import __version__
from agentorch.artifacts import signature as signing
from agentorch.artifacts.signature import NotSigned
from agentorch.artifacts.state import FINAL_STATES
from agentorch.core.results import JobResult, StepResult
from agentorch.storage import atomic
from agentorch.storage.json_files import Document, make_from, read_bytes, read_json
from agentorch.storage.paths import ArtifactPaths, Roots

SCHEMA_VERSION = "1.0"
_BLOCK_BYTES = 1024 * 1024
# what of an attempt's result tells which agent it was
_AGENT = ("agent", "model", "session_id", "program")


class Word(StrEnum):
    """The words for what may be wrong with a file of a job."""

    ALTERED = "altered"
    MISSING = "missing"
    ADDED = "added"
    UNSIGNED = "unsigned"


@dataclass(frozen=True)
class Finding:
    """A file below the job's artifacts that is not as the record says; `reason` may be empty."""

    word: Word
    path: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.word} {self.path}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Verified:
    """A job held against its record. `signer` is None where nobody signed it."""

    findings: tuple[Finding, ...]
    signer: str | None = None


# ---- writing ----------------------------------------------------------------------------------


def keep(roots: Roots, result: JobResult, ends: int, state: bytes) -> None:
    """Write the record of a job that is about to have this result and this state.json.

    Its name is not durable until the directory is synced, as it is after state.json. A signature
    that can't be made stops no job: whoever verifies it finds none.
    """
    paths = roots.artifacts(result.job_id)
    content = canonical(_manifest(paths, result, ends, state))
    signature = None if roots.signing_key is None else _signature(roots.signing_key, content)
    if signature is None:
        paths.signature.unlink(missing_ok=True)
    else:
        atomic.replace(paths.signature, signature, last=False)
    atomic.replace(paths.manifest, content, last=False)


def canonical(document: Document) -> bytes:
    """Return a record as bytes: sorted, so the same run gives the same. Pure."""
    return json.dumps(document, ensure_ascii=True, indent=1, sort_keys=True).encode() + b"\n"


def _manifest(paths: ArtifactPaths, result: JobResult, ends: int, state: bytes) -> Document:
    files = dict(list_files(paths))
    files[paths.state.name] = _entry(state)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "manifest",
        "agentorch": __version__,
        "job_id": result.job_id,
        "status": result.status,
        "finished_at": result.finished_at,
        "ends": ends,
        "base": read_json(paths.base),
        "agents": list(_agents(paths)),
        "decisions": _entry(read_bytes(paths.decisions)),
        "files": files,
    }


def _agents(paths: ArtifactPaths) -> Iterator[Document]:
    """Which program each attempt ran that left a result."""
    for step in paths.started_steps():
        for directory in sorted(step.attempts.glob("*"), key=lambda path: _number(path.name)):
            attempt = _number(directory.name)
            document = read_json(step.attempt(attempt).result)
            if document is not None:
                result = make_from(step.attempt(attempt).result, document, StepResult.from_document)
                known = {name: getattr(result, name) for name in _AGENT}
                yield {"step_id": step.directory.name, "attempt": attempt, **known}


def _number(name: str) -> int:
    return int(name) if name.isascii() and name.isdigit() else 0


def _signature(key: Path, content: bytes) -> bytes | None:
    try:
        return signing.sign(key, content)
    except NotSigned:  # agentorch-doctor says why, agentorch-verify that it is so
        return None


# ---- looking ----------------------------------------------------------------------------------


def list_files(paths: ArtifactPaths) -> Iterator[tuple[str, Document]]:
    """Yield every file that belongs to the record, with its size and hash; names of one inode once
    read.

    What is no regular file has none: it is told by its kind. State, decisions and the record itself
    are not among them, nor locks, markers and what a killed writer left.
    """
    own = (paths.state, paths.decisions, paths.manifest, paths.signature)
    markers = (paths.cancel, paths.hold, paths.keep, paths.announcements, paths.callback)
    left_out = {str(path.relative_to(paths.directory)) for path in (*own, *markers)}
    known: dict[tuple[int, int], Document] = {}
    for path in _walk(paths.directory):
        name = str(path.relative_to(paths.directory))
        if name not in left_out:
            yield name, _file_entry(path, known)


def _walk(directory: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path)


def _file_entry(path: Path, known: dict[tuple[int, int], Document]) -> Document:
    descriptor = _open(path)
    if descriptor is None:
        return {"kind": "no regular file"}
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return {"kind": "no regular file"}
        identity = (found.st_dev, found.st_ino)
        if identity not in known:
            known[identity] = _hash(file)
        return known[identity]


def _open(path: Path) -> int | None:
    """Return a descriptor; None where it is a link, a socket, or gone: no file, at any rate."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise
    except OSError:
        return None


def _hash(file: BinaryIO) -> Document:
    digest, size = hashlib.sha256(), 0
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
        size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _entry(content: bytes) -> Document:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


# ---- comparing --------------------------------------------------------------------------------


def is_due(paths: ArtifactPaths) -> bool:
    """Return whether the job has ended, so that there should be a record.

    Only what state.json says plainly is believed to the contrary: it may be what was altered.
    """
    match _json(read_bytes(paths.state)):
        case {"status": str(status)}:
            return status in FINAL_STATES
    return paths.manifest.exists()


def verify(paths: ArtifactPaths, allowed: Path | None) -> Verified:
    """Hold a job that has ended against its record.

    `allowed` is a file of who may sign: with one, a record that none of them signed is a finding.
    """
    content = read_bytes(paths.manifest)
    if not content:
        return Verified((Finding(Word.MISSING, paths.manifest.name, "there is no record"),))
    problem, signer = _check_signature(paths, content, allowed)
    document = _parse(content)
    if document is None or document["job_id"] != paths.directory.name:
        reason = "it is no record of this job"
        return Verified((Finding(Word.ALTERED, paths.manifest.name, reason),), signer)
    found, recorded = dict(list_files(paths)), dict(document["files"])
    edits = _edits(read_bytes(paths.decisions)[document["decisions"]["bytes"] :])
    if edits:
        recorded, found = edited_record(paths.edited_job.name, edits, recorded, found)
    if paths.state.exists():
        found[paths.state.name] = _entry(read_bytes(paths.state))
    findings = (
        *problem,
        *_decisions_differ(paths.decisions, document["decisions"]),
        *compare(recorded, found),
    )
    return Verified(findings, signer)


def edited_record(
    name: str, edits: Sequence[str], recorded: Document, found: Document
) -> tuple[Document, Document]:
    """Return the record and the files with the job's document as it should be after these edits,
    and as it is. it is. It may be the one before the last, too: a line is durable before its act.
    Pure.
    """
    before = edits[-2] if len(edits) > 1 else recorded.get(name, {}).get("sha256")
    is_ = found.get(name, {}).get("sha256")
    wanted = before if is_ == before else edits[-1]
    return _with_hash(recorded, name, wanted), _with_hash(found, name, is_)


def _with_hash(files: Document, name: str, hash_: str | None) -> Document:
    rest = {path: entry for path, entry in files.items() if path != name}
    return rest if hash_ is None else {**rest, name: hash_}


def _edits(lines: bytes) -> tuple[str, ...]:
    """Return the hashes of the documents that decisions made of a job, oldest first."""
    found = []
    for line in map(_json, lines.splitlines()):
        match line:
            case {"what": "edit", "after": str(hash_)} | {
                "what": "priority",
                "document": str(hash_),
            }:
                found.append(hash_)
    return tuple(found)


def compare(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what differs, sorted by path. Pure."""
    for path in sorted(recorded.keys() | found.keys()):
        if path not in found:
            yield Finding(Word.MISSING, path)
        elif path not in recorded:
            yield Finding(Word.ADDED, path)
        elif recorded[path] != found[path]:
            yield Finding(Word.ALTERED, path)


def _decisions_differ(path: Path, recorded: Document) -> Iterable[Finding]:
    content = read_bytes(path)
    if _entry(content[: recorded["bytes"]]) == recorded:
        return ()
    word = Word.ALTERED if path.exists() else Word.MISSING
    return (Finding(word, path.name, "what was decided before the end is another"),)


def _check_signature(
    paths: ArtifactPaths, content: bytes, allowed: Path | None
) -> tuple[tuple[Finding, ...], str | None]:
    signature = read_bytes(paths.signature)
    if not signature:
        reason = "nobody signed it"
        unsigned = (Finding(Word.UNSIGNED, paths.manifest.name, reason),)
        return (() if allowed is None else unsigned), None
    try:
        return (), signing.signer(content, signature, allowed)
    except NotSigned as problem:
        return (Finding(Word.UNSIGNED, paths.manifest.name, str(problem)),), None


def _parse(content: bytes) -> Document | None:
    """Return the record; None where it is none. Only what is looked at is checked."""
    document = _json(content)
    match document:
        case {
            "schema_version": "1.0",
            "job_id": str(),
            "files": dict(),
            "decisions": {"bytes": int(size), "sha256": str()},
        } if size >= 0:
            return cast("Document", document)
    return None


def _json(content: bytes) -> object:
    """Return what somebody else may have written; None where it is no JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
