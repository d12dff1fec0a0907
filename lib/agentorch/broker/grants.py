"""Grants: the permissions of steps, a file each, named after its token's hash.

    GRANTS/SHA256(token).json       mode 0640, made by one rename

The token is nowhere on disk. A file is read again when it changed, and a grant is over when its
file is gone, so removing it is revoking it. Looking up a hash tells a guesser's clock nothing
about a token.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentorch.storage import atomic

_MOST_BYTES = 256 * 1024
_MOST_TOKEN_CHARS = 512
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Grant:
    """The permission of one attempt of a step until `expires_at` (seconds since 1970).

    `providers` are names of model providers, `hosts` are `NAME:PORT`, `max_cost_usd` None means no
    cap of its own; `cap` is the error code of running into it. `digest` is its token's hash, by
    which it is known.
    """

    job_id: str
    step_id: str
    attempt: int
    agent: str
    expires_at: float
    project_id: str | None = None
    providers: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    max_cost_usd: float | None = None
    cap: str = "max_cost"
    digest: str = ""


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """Return what a token is known by on disk."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def grant_path(directory: Path, token: str) -> Path:
    """Return the file of a token's grant."""
    return directory / f"{digest(token)}.json"


def document(grant: Grant) -> dict[str, Any]:
    """Return a grant as it is written. Pure."""
    return {name: value for name, value in asdict(grant).items() if name != "digest"}


def grant_of(found: Mapping[str, Any], name: str) -> Grant:
    """Return a grant as it was read. Raises ValueError where it is none. Pure."""
    try:
        known = {
            **found,
            "providers": tuple(str(one) for one in found.get("providers", ())),
            "hosts": tuple(str(one) for one in found.get("hosts", ())),
            "expires_at": float(found["expires_at"]),
            "digest": name,
        }
        return Grant(**known)
    except (KeyError, TypeError) as problem:
        raise ValueError(f"no grant: {problem}") from problem


def whose(grant: Grant | None) -> dict[str, Any]:
    """Return the fields of an entry about a grant; none where there is none. Pure."""
    if grant is None:
        return {}
    return {
        "job": grant.job_id,
        "step": grant.step_id,
        "attempt": grant.attempt,
        "agent": grant.agent,
        "project": grant.project_id,
    }


def write_grant(directory: Path, grant: Grant, token: str) -> Path:
    """Make a grant valid, until the file is removed or it expires. Raises TryAgain.

    The broker's group can read it. It need not outlive a power cut: its step does not.
    """
    path = grant_path(directory, token)
    with atomic.disk_trouble(path):
        atomic.replace(path, atomic.encode(document(grant)), last=False)
    return path


def remove_expired(directory: Path, now: float) -> None:
    """Remove the grants that are over: of steps that were killed. Raises OSError."""
    for path in directory.glob("*.json"):
        try:
            over = float(json.loads(path.read_bytes())["expires_at"]) <= now
        except (OSError, ValueError, KeyError, TypeError):  # gone meanwhile, or none of ours
            continue
        if over:
            path.unlink(missing_ok=True)


class Grants:
    """The grants of a directory. `now` tells seconds since 1970."""

    def __init__(self, directory: Path, now: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._now = now
        self._read: dict[str, tuple[tuple[int, int, int], Grant]] = {}

    def find(self, token: str) -> Grant | None:
        """Return the grant of a token; None where there is none, or where it has expired."""
        if not token or len(token) > _MOST_TOKEN_CHARS:
            return None
        name = digest(token)
        grant = self._current(name)
        if grant is None or not hmac.compare_digest(grant.digest, name):
            return None
        return grant if self._now() < grant.expires_at else None

    def living(self) -> frozenset[str]:
        """Return the digests of all grants whose files are there."""
        names = (path.stem for path in self._directory.glob("*.json"))
        return frozenset(name for name in names if _DIGEST.fullmatch(name))

    def _current(self, name: str) -> Grant | None:
        path = self._directory / f"{name}.json"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # gone, not ours to read, or a link: no grant
            self._read.pop(name, None)
            return None
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            mark = (status.st_ino, status.st_mtime_ns, status.st_size)
            before = self._read.get(name)
            if before is not None and before[0] == mark:
                return before[1]
            self._read.pop(name, None)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
                return None
            with contextlib.suppress(ValueError):  # not JSON, or no grant: it grants nothing
                found = json.loads(file.read())
                grant = grant_of(found if isinstance(found, dict) else {}, name)
                self._read[name] = (mark, grant)
                return grant
        return None

    def forget_gone(self) -> frozenset[str]:
        """Drop what is kept of grants whose files are gone; the digests of the others."""
        living = self.living()
        for name in self._read.keys() - living:
            del self._read[name]
        return living
