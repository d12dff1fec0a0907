"""Sources and work trees that are out to hurt their host."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentorch.storage import untrusted_tree
from agentorch.storage.copy_tree import remove
from agentorch.storage.paths import WorkspacePaths
from agentorch.workspace.workspace import PatchRefused, Source, Workspace, WorkspaceTrouble
from tests.support.workyard import git, root_only, trouble

NOBODY = 65534


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


@pytest.mark.parametrize("name", [".gitattributes", ".gitignore", ".gitmodules", "plain"])
def test_a_fifo_stops_nothing(name: str, workspace: Workspace) -> None:
    work = workspace.paths.work
    before = workspace.begin("s", 1)
    for directory in (work, work / "src"):
        (directory / name).unlink(missing_ok=True)
        os.mkfifo(directory / name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(work / "socket"))
    (work / "src/a").write_text("b\n")
    change = workspace.end(before)
    assert b"+b\n" in change.patch
    assert b"socket" not in change.patch
    assert workspace.begin("s", 1) == before
    assert not (work / "socket").exists()


@pytest.mark.parametrize("instead", ["nothing", "a file", "a link"])
def test_a_work_tree_that_is_no_directory_is_reported_and_put_back(
    instead: str, workspace: Workspace, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("untouched\n")
    before = workspace.begin("s", 1)
    work = workspace.paths.work
    shutil.rmtree(work)
    if instead == "a file":
        work.write_text("x")
    if instead == "a link":
        work.symlink_to(outside)
    with trouble("workspace_lost"):
        workspace.end(before)
    with trouble("workspace_lost"):
        workspace.apply(b"x")
    assert workspace.begin("t", 1) == before
    assert (work / "README").read_text() == "first\n"
    assert os.listdir(outside) == ["file"]


def test_nothing_is_written_or_removed_through_links(workspace: Workspace, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_text("untouched\n")
    outside.chmod(0o700)
    before = workspace.begin("s", 1)
    work = workspace.paths.work
    shutil.rmtree(work / "src")
    (work / "src").symlink_to(outside)
    remove(work / ".git")
    (work / ".git").symlink_to(outside)
    (work / "README").unlink()
    (work / "README").symlink_to(outside / "a")
    change = workspace.end(before)
    assert b"untouched" not in change.patch
    workspace.begin("s", 1)
    workspace.discard()
    assert (outside / "a").read_text() == "untouched\n"
    assert os.listdir(outside) == ["a"]


@pytest.mark.parametrize("name", ["git~1", ".GIT", ".git ", ".gitmodules", "src/.git"])
def test_names_that_git_refuses_are_kept_but_in_no_patch(name: str, workspace: Workspace) -> None:
    work = workspace.paths.work
    before = workspace.begin("s", 1)
    (work / name).symlink_to("somewhere")
    change = workspace.end(before)
    assert not change.changed
    workspace.begin("t", 1)
    (work / name).unlink()
    workspace.begin("t", 1)
    assert (work / name).readlink() == Path("somewhere")


def test_odd_names_are_names(workspace: Workspace) -> None:
    work = os.fsencode(workspace.paths.work)
    names = [b"\xff\xfe", b'"quoted"', b"new\nline", b" ", b"-n", b":(top)x", b"\\", b"*", b"a\tb"]
    before = workspace.begin("s", 1)
    for name in names:
        with open(os.path.join(work, name), "wb") as file:
            file.write(b"content\n")
    change = workspace.end(before)
    assert set(names) <= workspace.history.names(change.after.visible)
    workspace.begin("s", 1)
    assert workspace.apply(change.patch)
    assert set(names) <= set(os.listdir(work))


def test_a_file_beyond_the_limit_is_named(workspace: Workspace) -> None:
    before = workspace.begin("s", 1)
    for name in ("sparse", ".git/sparse"):
        with (workspace.paths.work / name).open("wb") as file:
            file.truncate(untrusted_tree.MAX_FILE_BYTES + 1)
        with trouble("file_too_large") as raised:
            workspace.begin("t", 1)
        assert "sparse" in str(raised.value)
        assert workspace.begin("s", 1) == before
        assert not (workspace.paths.work / name).exists()


def test_a_tree_deeper_than_any_path_is_reported_put_back_and_removed(workspace: Workspace) -> None:
    before = workspace.begin("s", 1)
    for directory, act in ((workspace.paths.work, "end"), (workspace.paths.work / ".git", "begin")):
        dig(directory)
        with trouble("path_too_long"):
            workspace.end(before) if act == "end" else workspace.begin("t", 1)
        assert workspace.begin("s", 1) == before
    dig(workspace.paths.work)
    workspace.discard()
    assert not workspace.paths.directory.exists()


def dig(directory: Path) -> None:
    code = "import os\nfor _ in range(60): os.mkdir('d' * 200); os.chdir('d' * 200)\nopen('f', 'w')"
    subprocess.run([sys.executable, "-c", code], cwd=directory, check=True)


def test_a_tree_nested_deeper_than_pythons_stack_is_kept(workspace: Workspace) -> None:
    before = workspace.begin("s", 1)
    deep = workspace.paths.work / "/".join("d" * 1200)
    subprocess.run(
        ["mkdir", "--parents", str(deep), str(workspace.paths.work / ".git/d/d")], check=True
    )
    (deep / "file").write_text("deep\n")
    change = workspace.end(before)
    assert b"+deep\n" in change.patch
    workspace.begin("t", 1)
    workspace.begin("t", 1)
    assert (deep / "file").read_text() == "deep\n"


# ---- without root's powers --------------------------------------------------------------------


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A directory of a user without powers."""
    directory = Path(tempfile.mkdtemp(prefix="agentorch-test-"))
    os.chown(directory, NOBODY, NOBODY)
    yield directory
    remove(directory)


def as_nobody(directory: Path, act: Callable[[Workspace], None]) -> None:
    """Does something with a workspace in a child that has no powers."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            act(Workspace(WorkspacePaths(directory / "job")))
        except BaseException:  # noqa: BLE001  (whatever it is, the child tells and ends here)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def shut_and_fixed(work: Path) -> None:
    for name in ("shut", "fixed"):
        (work / name / "inner").mkdir(parents=True)
        (work / name / "inner/file").write_text(name)
    for name in ("shut/inner/file", "shut/inner", "shut"):
        (work / name).chmod(0)
    for name in ("fixed/inner", "fixed"):
        (work / name).chmod(0o555)


@root_only
def test_unreadable_and_readonly_trees_are_kept_put_back_and_removed(theirs: Path) -> None:
    def act(workspace: Workspace) -> None:
        work = workspace.paths.work
        workspace.prepare(Source("empty"))
        before = workspace.begin("one", 1)
        shut_and_fixed(work)
        change = workspace.end(before)
        assert b"shut/inner/file" in change.patch
        assert b"fixed/inner/file" in change.patch
        before = workspace.begin("two", 1)
        for path, mode in ((work / "shut", 0), (work / ".git", 0), (work, 0o500)):
            path.chmod(mode)
        assert workspace.begin("two", 1) == before
        assert (work / "fixed").stat().st_mode & 0o777 == 0o555
        assert (work / "shut/inner/file").read_text() == "shut"
        assert (work / ".git/HEAD").exists()
        for name in ("three", "four"):
            (work / ".git").chmod(0)
            work.chmod(0)
            workspace.begin(name, 1)
        (work / "fixed").chmod(0)
        workspace.discard()
        assert not workspace.paths.directory.exists()

    as_nobody(theirs, act)


@root_only
def test_a_source_that_can_not_be_read_is_named(theirs: Path) -> None:
    (theirs / "source").mkdir()
    (theirs / "source/secret").touch(0o600)
    (theirs / "closed/.git").mkdir(parents=True)
    (theirs / "closed").chmod(0o700)

    def act(workspace: Workspace) -> None:
        with trouble("source_unreadable") as raised:
            workspace.prepare(Source("copy", theirs / "source"))
        assert str(theirs / "source/secret") in str(raised.value)
        with trouble("source_unreadable") as raised:
            workspace.prepare(Source("git", theirs / "closed"))
        assert str(theirs / "closed") in str(raised.value)
        workspace.prepare(Source("empty"))

    as_nobody(theirs, act)


@root_only
def test_files_of_another_user_are_reported(theirs: Path) -> None:
    as_nobody(theirs, lambda workspace: workspace.prepare(Source("empty")))
    (theirs / "job/work/foreign").touch(0)

    def act(workspace: Workspace) -> None:
        with trouble("unreadable") as raised:
            workspace.begin("s", 1)
        assert "foreign" in str(raised.value)

    as_nobody(theirs, act)


def test_a_refused_patch_is_trouble_with_a_code() -> None:
    assert PatchRefused("x").code == "patch_refused"
    assert isinstance(PatchRefused("x"), WorkspaceTrouble)
