"""The identity of the program that an attempt ran: its file, its hash, its version.

A program may be hundreds of megabytes, so its hash is kept, in a file that only we write:
{path: {"program": its file's identity, "sha256": …}}. Another file in its place is read anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from agentorch.agents.base import Capabilities
from agentorch.preflight.check import find_program
from agentorch.preflight.versions import first_version, version_text
from agentorch.storage import atomic
from agentorch.storage.json_files import Document, read_cache


def program_of(
    capabilities: Capabilities, environment: Mapping[str, str], versions: Path, hashes: Path
) -> Document | None:
    """Return the agent's program as it is now; None where it can't be read. It is not started.

    `versions` is the file of what programs said of theirs: its version is None where it was not
    asked since it was put there. `hashes` is the file of this module.
    """
    name = find_program(capabilities, environment.get("PATH", os.defpath))
    if name is None:
        return None
    path = os.path.realpath(name)
    try:
        identity = _identity(path)
        digest = _sha256(path, identity, hashes)
    except OSError:  # gone meanwhile, or it may be run but not read
        return None
    version = _version(capabilities, identity, versions)
    return {"path": path, "bytes": identity[2], "sha256": digest, "version": version}


def _identity(path: str) -> list[int]:
    status = os.stat(path)
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _sha256(path: str, identity: list[int], hashes: Path) -> str:
    known = read_cache(hashes)
    match known.get(path):
        case {"program": list(same), "sha256": str(digest)} if same == identity:
            return digest
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # where it can't be kept, it is read again
        atomic.replace_json(hashes, {**known, path: {"program": identity, "sha256": digest}})
    return digest


def _version(capabilities: Capabilities, identity: list[int], versions: Path) -> str | None:
    match read_cache(versions).get(shlex.join(capabilities.version_argv)):
        case {"program": list(same), "said": str(text)} if same == identity:
            version = first_version(text)
            return None if version is None else version_text(version)
    return None
