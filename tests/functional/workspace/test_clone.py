"""Workspaces made of repositories of every kind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentorch.storage.paths import WorkspacePaths
from agentorch.workspace.workspace import PatchRefused, Source, Workspace
from tests.support.workyard import git, root_only, trouble, write


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository with two commits, a tag, an executable, a link, and a second branch."""
    origin = tmp_path / "origin"
    (origin / "src").mkdir(parents=True)
    git(origin, "init", "-q", "-b", "trunk")
    (origin / "README").write_text("first\n")
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "one")
    (origin / "src/a.c").write_text("int main;\n")
    (origin / "run").write_text("#!/bin/sh\n")
    (origin / "run").chmod(0o755)
    (origin / "link").symlink_to("src/a.c")
    (origin / ".gitignore").write_text("*.o\n/build/\n")
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "two")
    git(origin, "tag", "v1")
    git(origin, "branch", "other")
    return origin


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(WorkspacePaths(tmp_path / "workspaces" / "job"))


def made(workspace: Workspace, origin: Path) -> Workspace:
    workspace.prepare(Source("git", origin))
    return workspace


def apply_in_a_clone(origin: Path, place: Path, patch: bytes) -> str:
    """What a user does with a patch: the tree that it gives in a fresh clone of the base."""
    git(place.parent, "clone", "-q", str(origin), str(place))
    git(place, "apply", "-", stdin=patch)
    git(place, "add", "-A", "-f")
    return git(place, "write-tree")


# ---- made of a repository ---------------------------------------------------------------------


def test_a_clone_is_the_base_commit_and_a_repository_of_its_own(
    origin: Path, workspace: Workspace
) -> None:
    made(workspace, origin)
    work = workspace.paths.work
    assert workspace.commit == git(origin, "rev-parse", "HEAD")
    tree = git(origin, "rev-parse", "HEAD^{tree}")
    assert (workspace.base.full, workspace.base.visible) == (tree, tree)
    assert git(work, "status", "--porcelain") == ""
    assert git(work, "symbolic-ref", "HEAD") == "refs/heads/trunk"
    assert git(work, "rev-list", "--count", "HEAD") == "2"
    assert git(work, "describe", "--tags") == "v1"
    assert git(work, "branch", "--format=%(refname)") == "refs/heads/trunk"
    assert git(work, "fsck") == ""
    assert git(work, "config", "user.name") == "Somebody"
    assert (work / "link").readlink() == Path("src/a.c")
    assert workspace.paths.directory.stat().st_mode & 0o777 == 0o750
    assert work.stat().st_mode & 0o777 == 0o750


def test_a_clone_shares_nothing_and_has_no_hooks(origin: Path, workspace: Workspace) -> None:
    made(workspace, origin)
    files = [path for path in workspace.paths.directory.rglob("*") if path.is_file()]
    assert files
    assert all(path.lstat().st_nlink == 1 for path in files if not path.is_symlink())
    names = {path.name for path in workspace.paths.directory.rglob("*")}
    assert not names & {"hooks", "alternates"}


def test_a_clone_of_a_repository_that_borrows_is_whole(origin: Path, workspace: Workspace) -> None:
    borrower = origin.parent / "borrower"
    git(origin.parent, "clone", "-q", "--shared", str(origin), str(borrower))
    made(workspace, borrower)
    origin.rename(origin.parent / "gone")
    assert git(workspace.paths.work, "fsck") == ""


def test_a_detached_head_is_cloned(origin: Path, workspace: Workspace) -> None:
    git(origin, "checkout", "-q", "--detach", "HEAD~1")
    made(workspace, origin)
    assert workspace.commit == git(origin, "rev-parse", "HEAD")
    assert git(workspace.paths.work, "status", "--porcelain") == ""
    assert sorted(os.listdir(workspace.paths.work)) == [".git", "README"]


def test_a_repository_without_commits_is_an_empty_base(
    tmp_path: Path, workspace: Workspace
) -> None:
    git(tmp_path, "init", "-q", "-b", "trunk", "unborn")
    made(workspace, tmp_path / "unborn")
    assert git(workspace.paths.work, "log", "--format=%an <%ae> %at") == (
        "agentorch <agentorch@localhost> 0"
    )
    assert git(workspace.paths.work, "status", "--porcelain") == ""


def test_a_linked_work_tree_and_a_shallow_clone_are_cloned(
    origin: Path, tmp_path: Path, workspace: Workspace
) -> None:
    git(origin, "worktree", "add", "-q", str(tmp_path / "linked"), "other")
    made(workspace, tmp_path / "linked")
    assert git(workspace.paths.work, "symbolic-ref", "HEAD") == "refs/heads/other"
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{origin}", "shallow")
    second = Workspace(WorkspacePaths(tmp_path / "second"))
    made(second, tmp_path / "shallow")
    assert git(second.paths.work, "rev-list", "--count", "HEAD") == "1"
    assert git(second.paths.work, "fsck") == ""


def test_a_sha256_repository_is_cloned(tmp_path: Path, workspace: Workspace) -> None:
    origin = tmp_path / "sha256"
    git(tmp_path, "init", "-q", "--object-format=sha256", str(origin))
    write(origin, a="a\n")
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "one")
    made(workspace, origin)
    assert git(workspace.paths.work, "status", "--porcelain") == ""
    before = workspace.begin("s", 1)
    write(workspace.paths.work, b="b\n")
    change = workspace.end(before)
    assert apply_in_a_clone(origin, tmp_path / "clone", change.patch) == change.after.visible


def test_a_submodule_stays_empty_and_out_of_every_tree(
    origin: Path, tmp_path: Path, workspace: Workspace
) -> None:
    outer = tmp_path / "outer"
    git(tmp_path, "init", "-q", str(outer))
    allow = ("-c", "protocol.file.allow=always")
    git(outer, *allow, "submodule", "--quiet", "add", str(origin), "sub")
    git(outer, "commit", "-qm", "with a submodule")
    made(workspace, outer)
    work = workspace.paths.work
    assert os.listdir(work / "sub") == []
    assert git(work, "status", "--porcelain") == ""
    assert workspace.history.names(workspace.base.full) == {b".gitmodules"}
    before = workspace.begin("s", 1)
    write(work, new="x\n")
    change = workspace.end(before)
    assert b"sub" not in change.patch
    write(work, new="y\n")
    workspace.begin("s", 1)
    assert os.listdir(work / "sub") == []


def test_attributes_convert_nothing_and_the_patch_fits_a_checkout_that_converts(
    tmp_path: Path, workspace: Workspace
) -> None:
    origin = tmp_path / "converting"
    git(tmp_path, "init", "-q", str(origin))
    write(origin, text="one\ntwo\nthree\n", ident="$Id$\nx\n", lf="a\r\nb\n")
    (origin / "wide").write_bytes("wide\nä\n".encode("utf-16"))
    (origin / ".gitattributes").write_text(
        "text text eol=crlf\nident ident\nwide working-tree-encoding=UTF-16\n"
        "lf -text\n*.bin binary\n*.big filter=lfs diff=lfs merge=lfs -text\nold crlf\n"
    )
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "one")
    made(workspace, origin)
    work = workspace.paths.work
    assert workspace.base.visible == git(origin, "rev-parse", "HEAD^{tree}")
    assert git(work, "status", "--porcelain") == ""
    assert (work / "text").read_bytes() == b"one\ntwo\nthree\n"
    before = workspace.begin("s", 1)
    (work / "text").write_bytes(b"one\nTWO\nthree\n")
    (work / "ident").write_bytes(b"$Id$\ny\n")
    (work / "wide").write_bytes("wide\nö\n".encode())
    (work / "lf").write_bytes(b"a\r\nB\r\n")
    (work / "x.bin").write_bytes(b"text only\n")
    (work / "old").write_bytes(b"1\n2\n")
    change = workspace.end(before)
    clone = tmp_path / "clone"
    assert apply_in_a_clone(origin, clone, change.patch) == change.after.visible
    assert (clone / "text").read_bytes() == b"one\r\nTWO\r\nthree\r\n"
    assert (clone / "wide").read_bytes().decode("utf-16") == "wide\nö\n"


@root_only
def test_a_repository_of_another_user_is_cloned(origin: Path, workspace: Workspace) -> None:
    for path in [origin, *origin.rglob("*")]:
        os.chown(path, 12345, 12345, follow_symlinks=False)
    made(workspace, origin)
    assert (workspace.paths.work / "README").read_text() == "first\n"


def test_a_lost_workspace_is_made_again_at_its_base_with_the_steps_patches(
    origin: Path, tmp_path: Path, workspace: Workspace
) -> None:
    made(workspace, origin)
    commit, patches = workspace.commit, []
    for number in range(2):
        before = workspace.begin(f"s{number}", 1)
        write(workspace.paths.work, README=f"step {number}\n", **{f"new{number}": "x\n"})
        patches.append(workspace.end(before).patch)
    whole = workspace.job_change()
    workspace.discard()
    git(origin, "commit", "-q", "--allow-empty", "-m", "meanwhile")
    again = Workspace(workspace.paths)
    again.prepare(Source("git", origin), patches=[*patches, b""], commit=commit)
    assert again.commit == commit == git(again.paths.work, "rev-parse", "HEAD")
    assert again.job_change() == whole
    again.discard()
    with pytest.raises(PatchRefused):
        again.prepare(Source("git", origin), patches=[patches[1], patches[0]])
    with trouble("base_gone"):
        again.prepare(Source("git", origin), commit="0" * 39 + "1")
    again.prepare(Source("git", origin))
    assert again.commit == git(origin, "rev-parse", "HEAD")
