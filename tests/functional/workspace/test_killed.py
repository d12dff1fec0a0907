"""A workspace whose process is killed, and how many programs it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentorch.storage.paths import WorkspacePaths
from agentorch.workspace.workspace import Workspace
from tests.support.workyard import (
    git,
    leave_oddities,
    make_havoc,
    needs_strace,
    reopened,
    small_repository,
    state,
    workspace_of,
    write,
)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return small_repository(tmp_path)


@pytest.fixture
def workspace(tmp_path: Path, origin: Path) -> Workspace:
    return workspace_of(tmp_path, origin)


SCRIPT = """
import sys
from pathlib import Path
from agentorch.storage.paths import WorkspacePaths
from agentorch.workspace.workspace import Source, Workspace
w = Workspace(WorkspacePaths(Path(sys.argv[1])))
source = Source('git', Path(sys.argv[2]))
"""


def killed_at(point: int, calls: str, act: str, workspace: Workspace, origin: Path) -> bool:
    """Whether a process that does this was killed, at the nth of these system calls."""
    inject = ["-e", f"inject={calls}:signal=SIGKILL:when={point}", "-o", "/dev/null"]
    python = [sys.executable, "-B", "-c", SCRIPT + act, str(workspace.paths.directory), str(origin)]
    ended = subprocess.run(["strace", "-qq", *inject, *python], check=False)
    assert ended.returncode in (0, -9)
    return ended.returncode != 0


@needs_strace
def test_a_killed_prepare_leaves_nothing_that_is_taken_for_whole(
    origin: Path, tmp_path: Path
) -> None:
    workspace = Workspace(WorkspacePaths(tmp_path / "killed" / "job"))
    point = 1
    while killed_at(point, "mkdir,rename,fsync", "w.prepare(source)", workspace, origin):
        point += 1
    assert point > 3
    assert git(workspace.paths.work, "status", "--porcelain") == ""
    assert workspace.base.full == git(origin, "rev-parse", "HEAD^{tree}")


@needs_strace
def test_a_killed_begin_is_begun_again(workspace: Workspace, origin: Path) -> None:
    leave_oddities(workspace.paths.work)
    before = workspace.begin("one", 1)
    found = state(workspace.paths.work)
    for act in ("w.begin('one', 1)", "w.begin('two', 1)"):
        point = 1
        while killed_at(point, "rename,fsync,rmdir", act, workspace, origin):
            point += 1
        assert point > 2
        assert state(workspace.paths.work) == found
    make_havoc(workspace.paths.work)
    assert reopened(workspace).begin("two", 1) == before
    assert state(workspace.paths.work) == found


# ---- its cost ---------------------------------------------------------------------------------


def processes(action: str, workspace: Workspace, tmp_path: Path) -> int:
    """How many programs an action starts, counted by strace(1)."""
    trace = tmp_path / "trace"
    argv = ["strace", "-f", "-qq", "-e", "trace=execve", "-e", "status=successful", "-o"]
    python = [sys.executable, "-c", SCRIPT + action, str(workspace.paths.directory), "/"]
    subprocess.run([*argv, str(trace), *python], check=True)
    return sum("/git" in line for line in trace.read_text().splitlines())


@needs_strace
def test_how_many_programs_it_takes(workspace: Workspace, tmp_path: Path) -> None:
    end = f"from agentorch.workspace.workspace import Snapshot\nw.end({workspace.base})"
    assert processes("w.begin('one', 1)", workspace, tmp_path) == 0
    assert processes(end, workspace, tmp_path) == 3
    write(workspace.paths.work, README="changed\n")
    assert processes(end, workspace, tmp_path) == 8
