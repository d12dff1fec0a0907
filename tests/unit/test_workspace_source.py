"""What a workspace is made of: repositories of every kind, directories, nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentorch.job import Job, Step
from agentorch.paths import WorkspacePaths
from agentorch.workspace import (
    PatchRefused,
    Source,
    Workspace,
    WorkspaceTrouble,
    source_of,
)

PERSON = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may chown")


def git(directory: Path, *arguments: str, stdin: bytes | None = None) -> str:
    argv = ["git", *PERSON, *arguments]
    ended = subprocess.run(argv, cwd=directory, input=stdin, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")
    return ended.stdout.decode(errors="replace").strip()


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        (root / name).write_text(content)


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


def reopened(workspace: Workspace) -> Workspace:
    """The workspace as the next process finds it."""
    return Workspace(workspace.paths)


def apply_in_a_clone(origin: Path, place: Path, patch: bytes) -> str:
    """What a user does with a patch: the tree that it gives in a fresh clone of the base."""
    git(place.parent, "clone", "-q", str(origin), str(place))
    git(place, "apply", "-", stdin=patch)
    git(place, "add", "-A", "-f")
    return git(place, "write-tree")


def trouble(code: str) -> pytest.RaisesExc[WorkspaceTrouble]:
    return pytest.RaisesExc(WorkspaceTrouble, check=lambda raised: raised.code == code)


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


# ---- made of a directory, or of nothing -------------------------------------------------------


def test_an_empty_source_is_a_repository_with_one_empty_commit(workspace: Workspace) -> None:
    workspace.prepare(Source("empty"), when=datetime(2026, 1, 2, tzinfo=UTC))
    work = workspace.paths.work
    assert os.listdir(work) == [".git"]
    assert git(work, "log", "--format=%ad", "--date=iso-strict") == "2026-01-02T00:00:00+00:00"
    assert git(work, "status", "--porcelain") == ""
    assert git(work, "ls-tree", "-r", "HEAD") == ""


def test_a_directory_is_copied_without_its_special_files(
    tmp_path: Path, workspace: Workspace
) -> None:
    source = tmp_path / "source"
    (source / "deep/empty").mkdir(parents=True)
    (source / "deep/file").write_bytes(b"x" * 100_000)
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    (source / "dangling").symlink_to("/nowhere/at/all")
    (source / ".gitignore").write_text("ignored\n")
    write(source, ignored="kept all the same\n")
    os.mkfifo(source / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
    workspace.prepare(Source("copy", source))
    work = workspace.paths.work
    assert sorted(os.listdir(work)) == [
        ".git",
        ".gitignore",
        "dangling",
        "deep",
        "ignored",
        "run",
    ]
    assert (work / "dangling").readlink() == Path("/nowhere/at/all")
    assert (work / "deep/file").read_bytes() == b"x" * 100_000
    assert (work / "deep/empty").is_dir()
    assert (work / "deep/file").stat().st_ino != (source / "deep/file").stat().st_ino
    assert work.stat().st_mode & 0o777 == 0o750
    assert git(work, "status", "--porcelain") == ""
    assert b"ignored" not in workspace.history.names(workspace.base.visible)
    assert b"ignored" in workspace.history.names(workspace.base.full)


def test_the_same_directory_gives_the_same_commit(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write(source, a="a\n")
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    commits = set()
    for name in ("one", "two"):
        workspace = Workspace(WorkspacePaths(tmp_path / name))
        workspace.prepare(Source("copy", source), when=when)
        commits.add(workspace.commit)
    assert len(commits) == 1


def test_the_state_directory_is_never_copied_into_itself(tmp_path: Path) -> None:
    state = tmp_path / "source" / "state"
    (state / "queue").mkdir(parents=True)
    write(tmp_path / "source", a="a\n")
    workspace = Workspace(WorkspacePaths(state / "workspaces" / "job"))
    workspace.prepare(Source("copy", tmp_path / "source"), excluded=(state,))
    assert sorted(os.listdir(workspace.paths.work)) == [".git", "a"]
    other = Workspace(WorkspacePaths(tmp_path / "source" / "own"))
    other.prepare(Source("copy", tmp_path / "source"))
    assert sorted(os.listdir(other.paths.work)) == [".git", "a", "state"]


@pytest.mark.parametrize("kind", ["git", "copy"])
def test_a_source_that_is_not_there_is_named(
    kind: str, tmp_path: Path, workspace: Workspace
) -> None:
    source = Source("git" if kind == "git" else "copy", tmp_path / "absent")
    with trouble("source_missing") as raised:
        workspace.prepare(source)
    assert str(tmp_path / "absent") in str(raised.value)
    workspace.prepare(Source("empty"))


def test_a_source_that_is_no_repository_is_named(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "broken/.git").mkdir(parents=True)
    with trouble("source_unreadable") as raised:
        made(workspace, tmp_path / "broken")
    assert str(tmp_path / "broken") in str(raised.value)


def test_symbolic_links_on_the_way_are_refused(origin: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tmp_path)
    workspace = Workspace(WorkspacePaths(tmp_path / "job"))
    for kind in ("git", "copy"):
        with trouble("symlink_refused"):
            workspace.prepare(Source("git" if kind == "git" else "copy", tmp_path / "alias/origin"))
    through = Workspace(WorkspacePaths(tmp_path / "alias" / "job"))
    with trouble("symlink_refused"):
        through.prepare(Source("git", origin))
    assert not workspace.paths.record.exists()


def job(**fields: str) -> Job:
    step = Step("s", "exec", "r", "p")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return Job("job-00001", moment.isoformat(), moment, "goal", (step,), **fields)  # type: ignore[arg-type]


def test_where_a_job_comes_from(origin: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    aliases = {"p": origin}
    git(tmp_path, "clone", "-q", "--bare", str(origin), "bare")
    assert source_of(job(project_id="p"), aliases, tmp_path) == Source("git", origin)
    assert source_of(job(project_id="p", source_type="webhook"), aliases, tmp_path).kind == "git"
    assert source_of(job(source_type="webhook"), aliases, tmp_path) == Source("empty")
    assert source_of(job(workdir="plain"), {}, tmp_path) == Source("copy", tmp_path / "plain")
    assert source_of(job(workdir="."), {}, origin) == Source("git", origin)
    assert source_of(job(workdir=str(tmp_path / "bare")), {}, origin).kind == "git"
    assert source_of(job(workdir="src/.."), {}, origin) == Source("git", origin)
    with trouble("source_missing"):
        source_of(job(project_id="q"), aliases, tmp_path)


def test_prepare_twice_is_prepare_once(origin: Path, workspace: Workspace) -> None:
    made(workspace, origin)
    write(workspace.paths.work, README="mine\n")
    made(reopened(workspace), origin)
    assert (workspace.paths.work / "README").read_text() == "mine\n"


def test_a_half_made_workspace_is_made_anew(origin: Path, workspace: Workspace) -> None:
    made(workspace, origin)
    (workspace.paths.home / "kept").mkdir(parents=True)
    workspace.paths.record.unlink()
    (workspace.paths.work / "README").write_text("torn")
    (workspace.paths.history / "HEAD").unlink()
    made(reopened(workspace), origin)
    assert (workspace.paths.work / "README").read_text() == "first\n"
    assert (workspace.paths.home / "kept").is_dir()


def test_a_record_that_says_nothing_is_a_lost_workspace(workspace: Workspace) -> None:
    with trouble("workspace_lost"):
        workspace.begin("s", 1)
    workspace.prepare(Source("empty"))
    workspace.paths.record.write_text(json.dumps({"commit": "x"}))
    with trouble("workspace_lost"):
        workspace.begin("s", 1)
    workspace.discard()
    workspace.prepare(Source("empty"))
    workspace.begin("s", 1)
