"""The contents of an archive of a job: EXPORT.json, the first entry of the tar, and its rules.

    EXPORT.json                 the job's id, its state, and every entry behind it with its hash
    artifacts/…                 the job's artifact directory, without locks and temporary files
    workspace/workspace.json    and, where it was asked for, its workspace: the work tree,
    workspace/work/…            and of its history what no configuration is in
    workspace/history.git/{HEAD,packed-refs,shallow,refs/…,objects/…}

What is not spelled here is neither written nor taken. Nothing of an agent's HOME is in it: a login
may be there. Pure.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentorch import __version__
from agentorch.core.errors import Invalid
from agentorch.core.job import JOB_ID
from agentorch.core.states import State
from agentorch.storage.tar_stream import Header, Kind

NAME = "EXPORT.json"
ARTIFACTS, WORKSPACE = "artifacts", "workspace"
MAX_MANIFEST_BYTES = 256 << 20
MAX_PATH_BYTES = 3500  # PATH_MAX is 4096, and something stands before it
MAX_NAME_BYTES = 255  # NAME_MAX
_ALL_PERMISSIONS = 0o777
_SCHEMA_VERSION = "1.0"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OURS = re.compile(r"(?!\.)(?!callback\.json$)[^/]+(/(?!\.)[^/]+)*")
_HISTORY = re.compile(
    r"HEAD|packed-refs|shallow|refs(/[\w-][\w.-]*)*|objects|objects/pack"
    r"|objects/[0-9a-f]{2}(/[0-9a-f]{38}([0-9a-f]{24})?)?"
    r"|objects/pack/pack-[0-9a-f]{40}([0-9a-f]{24})?\.(pack|idx|rev)"
)
_PARTS = {
    "workspace.json": Kind.FILE,
    "work": Kind.DIRECTORY,
    "history.git": Kind.DIRECTORY,
}


@dataclass(frozen=True)
class Entry:
    """An entry of the tar; `sha256` of a file's content, empty where it has none."""

    header: Header
    sha256: str = ""


@dataclass(frozen=True)
class LeftOut:
    """An entry of a job's directories that is not in its archive."""

    path: str
    why: str


@dataclass(frozen=True)
class Manifest:
    """EXPORT.json. `key` is the name that the queue file had."""

    job_id: str
    state: State
    key: str
    entries: Sequence[Entry]
    left_out: Sequence[LeftOut] = ()

    @property
    def header(self) -> Header:
        """The header of EXPORT.json itself."""
        return Header(NAME, Kind.FILE, 0o640, len(self.encode()))

    def encode(self) -> bytes:
        """Return the manifest as bytes: the same for the same job, whoever exports it and when."""
        document = {
            "schema_version": _SCHEMA_VERSION,
            "kind": "export",
            "agentorch": __version__,
            "job_id": self.job_id,
            "state": self.state,
            "key": self.key,
            "entries": [_entry_document(entry) for entry in self.entries],
            "left_out": [{"path": one.path, "why": one.why} for one in self.left_out],
        }
        return json.dumps(document, ensure_ascii=True, indent=1).encode() + b"\n"


def _entry_document(entry: Entry) -> dict[str, object]:
    header = entry.header
    told: dict[str, object] = {"path": header.path, "kind": header.kind, "mode": header.mode}
    if header.kind is Kind.FILE:
        return {**told, "bytes": header.size, "sha256": entry.sha256}
    return {**told, "target": header.target} if header.target else told


# ---- reading ----------------------------------------------------------------------------------


def manifest_of(content: bytes) -> Manifest:
    """Return the manifest, every name in it checked. Raises Invalid with the first problem."""
    try:
        document = json.loads(content)
        state = State(document["state"])
        entries = [_entry(one) for one in document["entries"]]
        version, kind, job_id, key = (
            document[name] for name in ("schema_version", "kind", "job_id", "key")
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise Invalid([f"{NAME} is none: {problem!r}"]) from problem
    if (version, kind) != (_SCHEMA_VERSION, "export") or state is State.RUNNING:
        raise Invalid([f"{NAME}: it is of another version or kind ({version!r}, {kind!r})"])
    if not (isinstance(job_id, str) and JOB_ID.fullmatch(job_id) and isinstance(key, str)):
        raise Invalid([f"{NAME}: {job_id!r} is no job's id"])
    if first := next(_problems(entries), None):
        raise Invalid([first])
    return Manifest(job_id, state, key, entries)


def _entry(document: Mapping[str, Any]) -> Entry:
    """Raise KeyError, TypeError or ValueError."""
    kind, path, mode = Kind(document["kind"]), document["path"], document["mode"]
    size, target = document.get("bytes", 0), document.get("target", "")
    sha256 = document.get("sha256", "")
    texts = all(isinstance(text, str) for text in (path, target, sha256))
    numbers = all(type(number) is int and number >= 0 for number in (mode, size))
    if not (texts and numbers) or mode > _ALL_PERMISSIONS:
        raise TypeError(path)
    if (kind is Kind.FILE) != bool(_SHA256.fullmatch(sha256)):
        raise ValueError(path)
    return Entry(Header(path, kind, mode, size, target), sha256)


def _problems(entries: Sequence[Entry]) -> Iterator[str]:
    known: dict[str, Kind] = {}
    for entry in entries:
        header = entry.header
        why = _why_not(header, known)
        if why:
            yield f"{header.path!r}: {why}"
        known[header.path] = header.kind
    if known.get(f"{ARTIFACTS}/job.json") is not Kind.FILE:
        yield f"{NAME}: there is no job.json"


def _why_not(header: Header, known: Mapping[str, Kind]) -> str | None:
    """Why an entry can't be taken; None where it can. `known` are those before it."""
    parent = posixpath.dirname(header.path)
    if not is_plain(header.path):
        return "it is no name below the job's directories"
    if header.path in known:
        return "it is there twice"
    if parent and known.get(parent) is not Kind.DIRECTORY:
        return "its directory is not there before it"
    if not may_hold(header.path, header.kind):
        return "a job has no such file"
    return _link_problem(header, known)


def _link_problem(header: Header, known: Mapping[str, Kind]) -> str | None:
    """Return why a link can't be taken; None where it can, or it is none."""
    if header.kind is Kind.SYMLINK and not stays(header.path, header.target):
        return "it is a link out of the work tree"
    if header.kind is Kind.LINK and not (
        known.get(header.target) is Kind.FILE and tree_of(header.path) == tree_of(header.target)
    ):
        return "it is a link to what is no file before it in its tree"
    return None


def is_plain(path: str) -> bool:
    """Return whether a path is relative, goes down only, and can be a path. Pure."""
    encoded = encoded_name(path)
    return (
        encoded is not None
        and not {b"", b".", b".."} & set(encoded.split(b"/"))
        and len(encoded) <= MAX_PATH_BYTES
        and all(len(part) <= MAX_NAME_BYTES for part in encoded.split(b"/"))
    )


def encoded_name(text: str) -> bytes | None:
    """Return a name as bytes; None where it can be none: a NUL, half a character. Pure."""
    try:
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
    return None if b"\0" in encoded else encoded


def may_hold(path: str, kind: Kind) -> bool:
    """Return whether an archive has such an entry. Pure."""
    top, _, rest = path.partition("/")
    if not rest:
        return kind is Kind.DIRECTORY and top in (ARTIFACTS, WORKSPACE)
    if top == ARTIFACTS:
        return kind is not Kind.SYMLINK and _OURS.fullmatch(rest) is not None
    part, _, below = rest.partition("/")
    if top != WORKSPACE or part not in _PARTS:
        return False
    if not below:
        return kind is _PARTS[part]
    if part == "history.git":
        return kind is not Kind.SYMLINK and _HISTORY.fullmatch(below) is not None
    return _PARTS[part] is Kind.DIRECTORY


def tree_of(path: str) -> str:
    """Return the tree that an entry belongs to: all artifacts are one, each part of a workspace
    is.
    """
    top, *below = path.split("/", 2)
    return top if top == ARTIFACTS else "/".join([top, *below[:1]])


def stays(path: str, target: str) -> bool:
    """Return whether a symlink's text, read from where it lies, names something in its tree.
    Pure.
    """
    encoded = encoded_name(target)
    if not encoded or encoded.startswith(b"/") or len(encoded) > MAX_PATH_BYTES:
        return False
    place = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    root = tree_of(path)
    return place == root or place.startswith(f"{root}/")
