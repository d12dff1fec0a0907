"""Steps in a workspace: begun, ended, put back, patched, lost; with real files and a real git."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from agentorch.workspace.workspace import Change, Workspace
from tests.support.workyard import (
    edit_everything,
    git,
    leave_oddities,
    make_havoc,
    rebooted,
    reopened,
    small_repository,
    state,
    step,
    trouble,
    workspace_of,
    write,
)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return small_repository(tmp_path)


@pytest.fixture
def workspace(tmp_path: Path, origin: Path) -> Workspace:
    return workspace_of(tmp_path, origin)


# ---- what came of a step ----------------------------------------------------------------------


def test_nothing_changed(workspace: Workspace) -> None:
    before = workspace.begin("s", 1)
    (workspace.paths.work / "README").touch()
    assert workspace.end(before) == Change(b"", changed=False, after=before)
    assert workspace.job_change().changed is False


def test_a_patch_holds_every_kind_of_change_and_applies(
    workspace: Workspace, origin: Path, tmp_path: Path
) -> None:
    before = workspace.begin("s", 1)
    edit_everything(workspace.paths.work)
    change = workspace.end(before)
    assert change.changed
    assert b"rename from rename\nrename to renamed to this\n" in change.patch
    assert b"old mode 100755\nnew mode 100644\n" in change.patch
    git(tmp_path, "clone", "-q", str(origin), "clone")
    git(tmp_path / "clone", "apply", "-", stdin=change.patch)
    git(tmp_path / "clone", "add", "-A")
    assert git(tmp_path / "clone", "write-tree") == change.after.visible


def test_a_steps_patch_is_that_steps_change_and_the_jobs_is_all(workspace: Workspace) -> None:
    one = step(workspace, "one", a="a\n")
    two = step(workspace, "two", b="b\n")
    assert b"+a\n" in one.patch
    assert b"+b\n" not in one.patch
    assert b"+a\n" not in two.patch
    whole = reopened(workspace).job_change()
    assert b"+a\n" in whole.patch
    assert b"+b\n" in whole.patch
    assert whole.after == two.after


def test_what_the_agent_commits_itself_is_in_the_patch(workspace: Workspace) -> None:
    before = workspace.begin("s", 1)
    work = workspace.paths.work
    write(work, README="mine\n", new="new\n")
    git(work, "add", "-A")
    git(work, "commit", "-qm", "the agent's own")
    git(work, "gc", "-q", "--prune=now")
    change = workspace.end(before)
    assert b"+mine\n" in change.patch
    assert b"+new\n" in change.patch


def test_ignored_files_are_kept_but_not_shown(workspace: Workspace) -> None:
    work = workspace.paths.work
    before = workspace.begin("one", 1)
    (work / "build").mkdir()
    write(work, **{"a.o": "object\n", "build/x": "x\n", ":(top)weird": "y\n"})
    change = workspace.end(before)
    assert b"object" not in change.patch
    assert b":(top)weird" in change.patch
    assert change.after.visible != change.after.full
    before = workspace.begin("two", 1)
    assert before == change.after
    write(work, **{".gitignore": "*.o\n*.c\nREADME\n", "a.o": "again\n", "b.c": "hidden\n"})
    (work / "src/a.c").write_text("still shown\n")
    (work / "build/x").unlink()
    change = workspace.end(before)
    assert b"still shown" in change.patch
    assert b"again" not in change.patch
    assert b"hidden" not in change.patch
    assert b"deleted" not in change.patch


def test_only_ignored_files_changed_is_no_change(workspace: Workspace) -> None:
    change = step(workspace, "s", **{"a.o": "object\n"})
    assert not change.changed
    assert change.patch == b""
    assert b"a.o" in workspace.history.names(change.after.full)


def test_a_file_that_hides_its_change_behind_an_old_mtime_is_seen(workspace: Workspace) -> None:
    """git compares times by the second: these changes look unchanged to its cache."""
    path = workspace.paths.work / "old"
    for number in range(3):
        path.write_text("aaaa\n")
        os.utime(path, (10**9, 10**9))
        before = workspace.begin(f"s{number}", 1)
        path.write_text("bbbb\n")
        os.utime(path, (10**9, 10**9))
        assert workspace.end(before).changed


def test_an_index_found_right_is_not_read_again(workspace: Workspace) -> None:
    """Files as new as the index are compared by their bytes, but only once."""
    before = workspace.begin("one", 1)
    index = workspace.paths.history / "index"
    newest_ns = max(path.lstat().st_mtime_ns for path in workspace.paths.work.rglob("*"))
    os.utime(index, ns=(newest_ns, newest_ns))
    workspace.end(before)
    assert workspace.history.index_ns() > newest_ns


def test_a_tree_that_nobody_touched_is_known_without_git(workspace: Workspace) -> None:
    before = workspace.begin("one", 1)
    workspace.history.directory.rename(workspace.paths.directory / "elsewhere")
    assert workspace.begin("two", 2) == before
    (workspace.paths.directory / "elsewhere").rename(workspace.history.directory)
    (workspace.paths.work / "new").touch()
    assert workspace.begin("three", 3) != before


def test_a_killed_git_leaves_a_lock_that_stops_nobody(workspace: Workspace) -> None:
    before = workspace.begin("s", 1)
    for name in ("index.lock", "index.check.lock", "index.visible.lock"):
        (workspace.paths.history / name).write_bytes(b"torn")
    write(workspace.paths.work, **{"a": "a\n", "a.o": "hidden\n"})
    assert workspace.end(before).changed


# ---- put back ---------------------------------------------------------------------------------


def test_a_second_attempt_finds_exactly_what_the_first_one_found(workspace: Workspace) -> None:
    work = workspace.paths.work
    before = workspace.begin("one", 1)
    leave_oddities(work)
    workspace.end(before)
    before = workspace.begin("two", 1)
    found = state(work)
    for _ in range(2):
        make_havoc(work)
        assert reopened(workspace).begin("two", 1) == before
        assert state(work) == found
        assert git(work, "status", "--porcelain", "src") == ""
        assert git(work / "vendor/lib", "log", "--format=%s") == "nested"
    make_havoc(work)
    assert workspace.end(before).changed
    assert workspace.begin("two", 1) == before
    assert state(work) == found
    assert not workspace.end(before).changed
    assert not workspace.paths.scratch.exists()


def test_a_second_visit_begins_with_what_is_there(workspace: Workspace) -> None:
    first = workspace.begin("s", 1)
    write(workspace.paths.work, new="x\n")
    second = workspace.begin("s", 2)
    assert second != first
    (workspace.paths.work / "new").unlink()
    assert workspace.begin("s", 2) == second
    assert (workspace.paths.work / "new").read_text() == "x\n"


def test_the_agents_repository_is_copied_again_only_where_it_changed(workspace: Workspace) -> None:
    workspace.begin("one", 1)
    copies = {path: path.stat() for path in (workspace.paths.git_before / ".git").rglob("*.pack")}
    assert copies
    git(workspace.paths.work, "commit", "-q", "--allow-empty", "-m", "more")
    workspace.begin("two", 1)
    assert {path: path.stat().st_ino for path in copies} == {
        path: status.st_ino for path, status in copies.items()
    }
    copied = workspace.paths.git_before / ".git"
    assert git(copied, "log", "-1", "--format=%s") == "more"
    pack = next((workspace.paths.work / ".git/objects/pack").glob("*.pack"))
    status = pack.stat()
    pack.chmod(0o644)
    pack.write_bytes(b"x" * status.st_size)
    os.utime(pack, ns=(status.st_atime_ns, status.st_mtime_ns))
    workspace.begin("three", 1)
    assert (copied / "objects/pack" / pack.name).read_bytes() == b"x" * status.st_size


def test_begin_is_safe_when_putting_back_was_cut_short(workspace: Workspace) -> None:
    before = workspace.begin("s", 1)
    found = state(workspace.paths.work)
    workspace.paths.scratch.mkdir()
    workspace.paths.work.rename(workspace.paths.scratch / "old")
    assert reopened(workspace).begin("s", 1) == before
    assert state(workspace.paths.work) == found


# ---- after a reboot ---------------------------------------------------------------------------


def test_after_a_reboot_torn_files_are_made_whole(workspace: Workspace) -> None:
    after = step(workspace, "one", new="x" * 1000).after
    (workspace.paths.work / "new").write_bytes(b"\0" * 1000)
    (workspace.paths.history / "index").write_bytes(b"")
    assert rebooted(workspace).begin("two", 1) == after
    assert (workspace.paths.work / "new").read_text() == "x" * 1000
    assert git(workspace.paths.work, "status", "--porcelain") == "?? new"
    write(workspace.paths.work, other="y\n")
    assert rebooted(workspace).begin("two", 1) == after
    assert not (workspace.paths.work / "other").exists()


def test_after_a_reboot_no_copy_of_a_repository_is_believed(workspace: Workspace) -> None:
    workspace.begin("s", 1)
    (workspace.paths.git_before / ".git/HEAD").write_bytes(b"")
    rebooted(workspace).begin("s", 1)
    reopened(workspace).begin("s", 1)
    assert git(workspace.paths.work, "status", "--porcelain") == ""


def test_lost_objects_are_a_lost_workspace(workspace: Workspace) -> None:
    step(workspace, "one", new="x\n")
    blob = git(workspace.paths.work, "hash-object", "new")
    (workspace.paths.history / "objects" / blob[:2] / blob[2:]).unlink()
    with trouble("workspace_lost"):
        rebooted(workspace).begin("two", 1)
    workspace.discard()
    assert not workspace.paths.directory.exists()


def test_lost_trees_are_a_lost_workspace(workspace: Workspace) -> None:
    before = workspace.begin("s", 1)
    shutil.rmtree(workspace.paths.history / "objects")
    with trouble("workspace_lost"):
        workspace.begin("s", 1)
    write(workspace.paths.work, README="x\n")
    with trouble("workspace_lost"):
        workspace.end(before)
