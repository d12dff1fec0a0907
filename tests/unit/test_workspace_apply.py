"""Patches of others applied to a work tree: once, whole, and nowhere else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agentorch.paths import WorkspacePaths
from agentorch.workspace import Change, PatchRefused, Source, Workspace

from .workyard import edit_everything, git, state, write


@pytest.fixture
def origin(tmp_path: Path) -> Path:
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


@pytest.fixture
def workspace(tmp_path: Path, origin: Path) -> Workspace:
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


def test_a_patch_is_applied_once(workspace: Workspace, tmp_path: Path, origin: Path) -> None:
    other = Workspace(WorkspacePaths(tmp_path / "other"))
    other.prepare(Source("git", origin))
    before = other.begin("s", 1)
    edit_everything(other.paths.work)
    change = other.end(before)
    before = workspace.begin("s", 1)
    assert workspace.apply(change.patch) is True
    assert workspace.apply(change.patch) is False
    assert workspace.apply(b"") is False
    assert workspace.end(before).after.visible == change.after.visible
    assert workspace.end(before).patch == change.patch
    workspace.begin("s", 1)
    assert workspace.apply(change.patch) is True


def new_file(name: str, mode: str = "100644") -> bytes:
    return (
        f"diff --git a/{name} b/{name}\nnew file mode {mode}\n--- /dev/null\n"
        f"+++ b/{name}\n@@ -0,0 +1 @@\n+/etc\n\\ No newline at end of file\n"
    ).encode()


@pytest.mark.parametrize(
    "patch",
    [
        b"no patch at all\n",
        new_file("README"),
        new_file(".git/hooks/post-commit"),
        new_file("src/.GIT/config"),
        new_file("../outside"),
        new_file("/outside"),
        new_file("good") + new_file("../outside"),
        new_file("out", "120000") + new_file("out/file"),
        new_file("through/file"),
        new_file("blocking"),
    ],
)
def test_a_patch_that_does_not_fit_or_reaches_out_changes_nothing(
    patch: bytes, workspace: Workspace, tmp_path: Path
) -> None:
    workspace.begin("s", 1)
    (workspace.paths.work / "through").symlink_to(tmp_path)
    os.mkfifo(workspace.paths.work / "blocking")
    found = outside_of_history(workspace, tmp_path)
    with pytest.raises(PatchRefused):
        workspace.apply(patch)
    assert outside_of_history(workspace, tmp_path) == found


def outside_of_history(workspace: Workspace, root: Path) -> dict[bytes, tuple[int, bytes]]:
    history = os.fsencode(workspace.paths.history.relative_to(root))
    return {path: found for path, found in state(root).items() if not path.startswith(history)}
