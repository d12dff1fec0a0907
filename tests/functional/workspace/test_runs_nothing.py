"""Repositories that want to run something on the host: nothing of them is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentorch.storage.copy_tree import remove
from agentorch.storage.paths import WorkspacePaths
from agentorch.workspace.workspace import Source, Workspace
from tests.support.workyard import git, trouble


class Canary:
    """A program that leaves a mark when anything runs it, in every place where git would."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.mark = directory / "sang"
        self.program = directory / "canary"
        self.program.write_text(f"#!/bin/sh\necho \"$0 $*\" >>'{self.mark}'\ncat\n")
        self.program.chmod(0o755)

    @property
    def sang(self) -> bool:
        return self.mark.exists()

    def perch(self, repository: Path) -> None:
        """Puts it into a repository's configuration and hooks."""
        hooks = repository / "hooks"
        hooks.mkdir(exist_ok=True)
        for name in ("post-checkout", "post-index-change", "pre-commit", "reference-transaction"):
            shutil.copy(self.program, hooks / name)
        (repository / "info").mkdir(exist_ok=True)
        (repository / "info/attributes").write_text("* filter=evil diff=evil\n")
        (repository / "evil").write_text(self.configuration(repository))
        with (repository / "config").open("a") as config:
            config.write(f'[include]\n\tpath = "{repository}/evil"\n')

    def configuration(self, repository: Path) -> str:
        evil = f"{self.program}"
        return (
            f"[core]\n\tfsmonitor = {evil}\n\thooksPath = {repository}/hooks\n\tpager = {evil}\n"
            f"\tsshCommand = {evil}\n\tgitProxy = {evil}\n\talternateRefsCommand = {evil}\n"
            f"[diff]\n\texternal = {evil}\n[pager]\n\tdiff = {evil}\n"
            f'[diff "evil"]\n\tcommand = {evil}\n\ttextconv = {evil}\n'
            f'[filter "evil"]\n\tclean = {evil}\n\tsmudge = {evil}\n\tprocess = {evil}\n'
            f"\trequired = true\n[uploadpack]\n\tpackObjectsHook = {evil}\n"
            f"[gpg]\n\tprogram = {evil}\n[commit]\n\tgpgSign = true\n"
        )


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "canary")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    origin = tmp_path / "origin"
    (origin / "src").mkdir(parents=True)
    git(origin, "init", "-q", "-b", "trunk")
    (origin / "README").write_text("first\n")
    (origin / "src/a").write_text("a\n")
    (origin / ".gitattributes").write_text("* filter=evil diff=evil text eol=crlf ident\n")
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "base")
    return origin


@pytest.fixture
def workspace(tmp_path: Path, origin: Path) -> Iterator[Workspace]:
    workspace = Workspace(WorkspacePaths(tmp_path / "workspaces" / "job"))
    workspace.prepare(Source("git", origin))
    yield workspace
    workspace.discard()


def live(workspace: Workspace) -> None:
    """Everything that the host does with a workspace."""
    work = workspace.paths.work
    before = workspace.begin("s", 1)
    (work / "README").write_text("changed\n")
    (work / "new").write_text("$Id$\n")
    change = workspace.end(before)
    assert b"-first\n+changed\n" in change.patch
    assert workspace.job_change().patch == change.patch
    assert workspace.begin("s", 1) == before
    assert (work / "README").read_text() == "first\n"
    assert workspace.apply(change.patch)
    assert workspace.end(before).after == change.after
    workspace.begin("t", 1)


# ---- nothing is executed ----------------------------------------------------------------------


def test_nothing_that_a_source_configures_is_run(
    origin: Path, canary: Canary, tmp_path: Path
) -> None:
    canary.perch(origin / ".git")
    git(origin, "status", check=False)
    assert canary.sang, "the canary must sing for a git that reads the configuration"
    canary.mark.unlink()
    workspace = Workspace(WorkspacePaths(tmp_path / "job"))
    workspace.prepare(Source("git", origin))
    live(workspace)
    assert not canary.sang


def test_a_source_that_lacks_objects_fetches_none(
    origin: Path, canary: Canary, tmp_path: Path
) -> None:
    blob = git(origin, "rev-parse", "HEAD:README")
    (origin / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with (origin / ".git/config").open("a") as config:
        config.write(
            "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tpartialClone = evil\n"
            f'[remote "evil"]\n\turl = {origin}\n\tuploadpack = {canary.program}\n'
            "\tpromisor = true\n"
        )
    workspace = Workspace(WorkspacePaths(tmp_path / "job"))
    with trouble("source_unreadable"):
        workspace.prepare(Source("git", origin))
    assert not canary.sang


def test_nothing_that_an_agent_configures_is_run(workspace: Workspace, canary: Canary) -> None:
    canary.perch(workspace.paths.work / ".git")
    git(workspace.paths.work, "status", check=False)
    assert canary.sang
    canary.mark.unlink()
    live(workspace)
    assert not canary.sang


def test_a_nested_repository_is_plain_files_and_runs_nothing(
    workspace: Workspace, canary: Canary
) -> None:
    work = workspace.paths.work
    before = workspace.begin("s", 1)
    git(work, "init", "-q", "vendor")
    (work / "vendor/file").write_text("nested\n")
    git(work / "vendor", "add", "-A")
    git(work / "vendor", "commit", "-qm", "nested")
    canary.perch(work / "vendor/.git")
    change = workspace.end(before)
    assert b"b/vendor/file" in change.patch
    assert b"160000" not in change.patch
    assert b".git/" not in change.patch
    assert not canary.sang


def test_a_repository_that_points_elsewhere_is_not_followed(
    workspace: Workspace, canary: Canary, origin: Path, tmp_path: Path
) -> None:
    canary.perch(origin / ".git")
    remove(workspace.paths.work / ".git")
    (workspace.paths.work / ".git").write_text(f"gitdir: {origin}/.git\n")
    live(workspace)
    other = Workspace(WorkspacePaths(tmp_path / "other"))
    other.prepare(Source("empty"))
    git(other.paths.work, "config", "core.worktree", str(origin))
    before = other.begin("s", 1)
    change = other.end(before)
    assert not change.changed
    remove(other.paths.work / ".git")
    (other.paths.work / ".git").symlink_to(origin / ".git")
    other.begin("t", 1)
    other.begin("t", 1)
    assert (other.paths.work / ".git").readlink() == origin / ".git"
    assert not canary.sang


def test_nothing_of_our_own_environment_is_believed(
    origin: Path, canary: Canary, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / ".config/git").mkdir(parents=True)
    (home / ".gitconfig").write_text(canary.configuration(home))
    (home / ".config/git/attributes").write_text("* filter=evil\n")
    (home / ".config/git/ignore").write_text("*\n")
    (origin / ".gitignore").touch()
    code = (
        "import sys; from pathlib import Path; from agentorch.storage.paths import WorkspacePaths\n"
        "from agentorch.workspace.workspace import Source, Workspace\n"
        "w = Workspace(WorkspacePaths(Path(sys.argv[1]))); p = Path(sys.argv[2])\n"
        "w.prepare(Source('git', p)); b = w.begin('s', 1)\n"
        "(w.paths.work / 'new').write_text('x'); (w.paths.work / '.gitignore').touch()\n"
        "assert b'b/new' in w.end(b).patch; w.begin('s', 1)"
    )
    environment = {
        **os.environ,
        "HOME": str(home),
        "GIT_DIR": str(origin / ".git"),
        "GIT_WORK_TREE": str(origin),
        "GIT_EXTERNAL_DIFF": str(canary.program),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsmonitor",
        "GIT_CONFIG_VALUE_0": str(canary.program),
        "GIT_CONFIG_PARAMETERS": f"'core.fsmonitor={canary.program}'",
    }
    argv = [sys.executable, "-c", code, str(tmp_path / "job"), str(origin)]
    subprocess.run(argv, env=environment, check=True)
    assert not canary.sang
