"""Where a workspace comes from: a job's source, a directory, nothing; and when it is refused."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentorch.core.job import Job, Step
from agentorch.storage.paths import WorkspacePaths
from agentorch.workspace.workspace import Source, Workspace, source_of
from tests.support.workyard import git, trouble, write


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
    return Workspace(workspace.paths)


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
    (workspace.paths.home("exec") / "kept").mkdir(parents=True)
    workspace.paths.record.unlink()
    (workspace.paths.work / "README").write_text("torn")
    (workspace.paths.history / "HEAD").unlink()
    made(reopened(workspace), origin)
    assert (workspace.paths.work / "README").read_text() == "first\n"
    assert (workspace.paths.home("exec") / "kept").is_dir()


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
