"""What the tests of workspaces share: a user's git, and directories compared."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from agentorch.storage.paths import WorkspacePaths
from agentorch.workspace.workspace import Change, Source, Workspace, WorkspaceTrouble

PERSON = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change owners")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def git(directory: Path, *arguments: str, stdin: bytes | None = None, check: bool = True) -> str:
    """What a user's git prints, who has an ordinary configuration."""
    argv = ["git", *PERSON, *arguments]
    ended = subprocess.run(argv, cwd=directory, input=stdin, capture_output=True, check=False)
    assert not check or ended.returncode == 0, ended.stderr.decode(errors="replace")
    return ended.stdout.decode(errors="replace").strip()


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        (root / name).write_text(content)


def state(root: Path) -> dict[bytes, tuple[int, bytes]]:
    """Everything in a directory but FIFOs, with its type, permissions and bytes."""
    found: dict[bytes, tuple[int, bytes]] = {}
    top = os.fsencode(root)
    for directory, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            if not stat.S_ISFIFO(mode):
                found[os.path.relpath(path, top)] = (mode, content(path, mode))
    return found


def content(path: bytes, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    return Path(os.fsdecode(path)).read_bytes() if stat.S_ISREG(mode) else b""


def trouble(code: str) -> pytest.RaisesExc[WorkspaceTrouble]:
    """Expects a WorkspaceTrouble of this code."""
    return pytest.RaisesExc(WorkspaceTrouble, check=lambda raised: raised.code == code)


# ---- a workspace of a small repository ------------------------------------------------------


def small_repository(tmp_path: Path) -> Path:
    """One commit: an executable, a link, a binary file, and rules of what to ignore."""
    origin = tmp_path / "origin"
    (origin / "src").mkdir(parents=True)
    git(origin, "init", "-q", "-b", "trunk")
    write(origin, README="first\n", run="#!/bin/sh\n", rename="1\n2\n3\n4\n5\n")
    (origin / "run").chmod(0o755)
    (origin / "src/a.c").write_text("int main;\n")
    (origin / "src/blob").write_bytes(bytes(range(256)))
    (origin / "link").symlink_to("src/a.c")
    (origin / ".gitignore").write_text("*.o\n/build/\n")
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "base")
    return origin


def workspace_of(tmp_path: Path, origin: Path) -> Workspace:
    workspace = Workspace(WorkspacePaths(tmp_path / "workspaces" / "job"))
    workspace.prepare(Source("git", origin))
    return workspace


def reopened(workspace: Workspace) -> Workspace:
    """The workspace as the next process finds it."""
    return Workspace(workspace.paths)


def rebooted(workspace: Workspace) -> Workspace:
    """The workspace as it is found after a reboot."""
    record = json.loads(workspace.paths.record.read_text())
    workspace.paths.record.write_text(json.dumps({**record, "boot": "another"}))
    return Workspace(workspace.paths)


def step(workspace: Workspace, name: str, **files: str) -> Change:
    before = workspace.begin(name, 1)
    write(workspace.paths.work, **files)
    return reopened(workspace).end(before)


# ---- what agents do ----------------------------------------------------------------------------


def edit_everything(work: Path) -> None:
    write(work, new="new\n", no_newline="no newline")
    (work / "README").write_text("first\nsecond\n")
    (work / "run").chmod(0o644)
    (work / "src/a.c").unlink()
    (work / "src/blob").write_bytes(bytes(range(255, -1, -1)) * 10)
    (work / "rename").rename(work / "renamed to this")
    (work / "link").unlink()
    (work / "link").mkdir()
    (work / "link/inside").symlink_to("../nowhere")
    (work / "crlf").write_bytes(b"a\r\nb\r\n")
    (work / "empty").touch(0o755)


def leave_oddities(work: Path) -> None:
    (work / "build/sub/empty").mkdir(parents=True)
    (work / "build/sub").chmod(0o700)
    write(work, **{"a.o": "ignored\n", "secret": "s\n", "readonly": "r\n", "group": "g\n"})
    (work / "secret").chmod(0o600)
    (work / "readonly").chmod(0o444)
    (work / "group").chmod(0o775)
    (work / "vendor/lib").mkdir(parents=True)
    git(work / "vendor/lib", "init", "-q")
    write(work / "vendor/lib", f="f\n")
    git(work / "vendor/lib", "add", "-A")
    git(work / "vendor/lib", "commit", "-qm", "nested")


def make_havoc(work: Path) -> None:
    edit_everything(work)
    shutil.rmtree(work / "build")
    shutil.rmtree(work / ".git")
    shutil.rmtree(work / "vendor/lib/.git")
    write(work, **{"a.o": "changed\n", "b.o": "ignored\n", "vendor/lib/f": "g\n"})
    (work / "group").chmod(0o644)
    (work / "secret").chmod(0o644)
    (work / "readonly").unlink()
    (work / "newdir/empty").mkdir(parents=True)
    os.mkfifo(work / "fifo")
    (work / "src").rename(work / "moved")
    (work / "src").symlink_to("/etc")
