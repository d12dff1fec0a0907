"""git as the host runs it: command lines, an environment of our own, and its failures in words.

Nothing that a work tree, its `.git` or the machine configures is read: the repository and the
index are ours, system and user configuration is off, and what remains is said here (git(1),
git-config(1)).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agentorch.core.errors import AgentorchError, TryAgain
from agentorch.storage.atomic import DISK_TROUBLE
from agentorch.storage.untrusted_tree import WorkspaceTrouble

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INDEX = "index"

CONFIGURATION: Mapping[str, str] = {
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.splitIndex": "false",
    "core.fileMode": "true",
    "core.symlinks": "true",
    "core.ignoreCase": "false",
    "core.autocrlf": "false",
    "core.fsync": "none",
    "gc.auto": "0",
}

_DISK_WORDS = tuple(os.strerror(number) for number in DISK_TROUBLE)


@dataclass(frozen=True)
class Place:
    """The repository, index and work tree that a git works with."""

    repository: Path
    index: str = INDEX
    work: Path | None = None


# ---- running ----------------------------------------------------------------------------------


def run(
    argv: Sequence[str], place: Place | None, stdin: bytes = b"", when: datetime = EPOCH
) -> subprocess.CompletedProcess[bytes]:
    """Run git to its end. What it makes in a work tree has mode 0644 or 0755.

    Raises TryAgain where the disk can't take it, or a signal ended it.
    """
    directory = None if place is None else place.work or place.repository
    ended = subprocess.run(
        ["git", *argv],
        input=stdin,
        capture_output=True,
        cwd=directory,
        env=environment(place, when),
        umask=0o022,
        check=False,
    )
    said = words(ended.stderr)
    if ended.returncode < 0:
        raise TryAgain(f"git {argv[0]}: ended by signal {-ended.returncode}")
    if ended.returncode and any(trouble in said for trouble in _DISK_WORDS):
        raise TryAgain(f"git {argv[0]}: {said}")
    return ended


def output(
    argv: Sequence[str], place: Place | None, stdin: bytes = b"", when: datetime = EPOCH
) -> bytes:
    """Return what git printed. Raises WorkspaceTrouble(workspace_lost) where it failed."""
    ended = run(argv, place, stdin, when)
    if ended.returncode:
        raise lost_workspace(f"git {argv[0]}: {words(ended.stderr)}")
    return ended.stdout


def lost_workspace(problem: str) -> AgentorchError:
    """Return the failure of whoever needs something of the workspace that is not there any more."""
    return WorkspaceTrouble("workspace_lost", f"the workspace is damaged: {problem}")


def words(stderr: bytes) -> str:
    """Return the first lines of what git said, as one. Pure."""
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines()]
    return "; ".join([line for line in lines if line][:3]) or "no reason given"


# ---- command lines ----------------------------------------------------------------------------


def environment(place: Place | None, when: datetime = EPOCH) -> dict[str, str]:
    """All variables of a git of ours; nothing is inherited but PATH."""
    stamp = f"@{int(when.timestamp())} +0000"
    variables = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_PAGER": "cat",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ALLOW_PROTOCOL": "file",
        "GIT_AUTHOR_NAME": "agentorch",
        "GIT_AUTHOR_EMAIL": "agentorch@localhost",
        "GIT_AUTHOR_DATE": stamp,
        "GIT_COMMITTER_NAME": "agentorch",
        "GIT_COMMITTER_EMAIL": "agentorch@localhost",
        "GIT_COMMITTER_DATE": stamp,
        "GIT_CONFIG_COUNT": str(len(CONFIGURATION)),
    }
    for number, (key, value) in enumerate(CONFIGURATION.items()):
        variables[f"GIT_CONFIG_KEY_{number}"] = key
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    if place is not None:
        variables["GIT_DIR"] = str(place.repository)
        variables["GIT_INDEX_FILE"] = str(place.repository / place.index)
    if place is not None and place.work is not None:
        variables["GIT_WORK_TREE"] = str(place.work)
    return variables


def clone_argv(source: Path, target: Path) -> list[str]:
    """Through the protocol, so nothing is shared and only what HEAD reaches is taken.

    git-upload-pack(1) is made to serve repositories that it does not trust; `safe.directory` says
    that this one may belong to somebody else, and reaches it only this way. What the source has
    not packed goes over as it is: to look for deltas takes longer than to copy.
    """
    serve = "git -c 'safe.directory=*' -c pack.window=0 -c pack.compression=0 upload-pack"
    return [
        "clone",
        "--quiet",
        "--bare",
        "--no-local",
        "--single-branch",
        "--template=",
        f"--upload-pack={serve}",
        "--",
        str(source),
        str(target),
    ]


def init_argv(target: Path) -> list[str]:
    return [
        "init",
        "--quiet",
        "--bare",
        "--template=",
        "--initial-branch=main",
        "--",
        str(target),
    ]


def add_argv() -> list[str]:
    return [
        "update-index",
        "--add",
        "--replace",
        "-z",
        "--stdin",
    ]


def forget_argv() -> list[str]:
    return [
        "update-index",
        "--force-remove",
        "-z",
        "--stdin",
    ]


def ignored_argv() -> list[str]:
    return [
        "check-ignore",
        "--no-index",
        "-z",
        "--stdin",
    ]


def pack_argv(prefix: Path) -> list[str]:
    """For a copy to be made of: one file, quickly, not the smallest one."""
    return [
        "pack-objects",
        "--quiet",
        "--revs",
        "--window=0",
        "--compression=0",
        str(prefix),
    ]


def names_argv(tree: str) -> list[str]:
    return [
        "ls-tree",
        "-r",
        "-z",
        "--name-only",
        tree,
    ]


def checkout_argv(tree: str) -> list[str]:
    return [
        "read-tree",
        "--reset",
        "-u",
        tree,
    ]


def patch_argv(before: str, after: str, *, renames: bool) -> list[str]:
    return [
        "diff-tree",
        "-r",
        "-p",
        "--binary",
        "--full-index",
        "--find-renames" if renames else "--no-renames",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--src-prefix=a/",
        "--dst-prefix=b/",
        before,
        after,
    ]


def apply_argv(*flags: str) -> list[str]:
    return [
        "apply",
        "--whitespace=nowarn",
        *flags,
        "-",
    ]
