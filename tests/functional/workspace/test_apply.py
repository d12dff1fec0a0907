"""Patches of others applied to a work tree: once, whole, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentorch.storage.paths import WorkspacePaths
from agentorch.workspace.workspace import PatchRefused, Source, Workspace
from tests.support.workyard import edit_everything, small_repository, state, workspace_of


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return small_repository(tmp_path)


@pytest.fixture
def workspace(tmp_path: Path, origin: Path) -> Workspace:
    return workspace_of(tmp_path, origin)


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
