"""Random trees, random edits: a patch gives the very tree, a second attempt the very state."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentorch.storage.paths import WorkspacePaths
from agentorch.storage.untrusted_tree import is_opaque
from agentorch.workspace.workspace import Source, Workspace
from tests.support.workyard import git, state

RUNS = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

NAMES = st.sampled_from(
    [
        b"a",
        b"b",
        b"c.txt",
        b"d.o",
        b"sp ace",
        b'q"uote',
        b"new\nline",
        b"\xff\xfe",
        b"\xc3\xa9",
        b"-n",
    ]
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
LINES = st.sampled_from([b"one\n", b"two\n", b"three\n", b"a\r\n", b"\n", b" \t \n", b"+++ x\n"])
TEXT = st.builds(
    lambda lines, rest: b"".join(lines) + rest,
    st.lists(LINES, max_size=12),
    st.sampled_from([b"", b"no newline", b"\r"]),
)
CONTENTS = st.one_of(TEXT, st.binary(max_size=64), st.just(b"same content\n" * 8))


@dataclass(frozen=True)
class Edit:
    """One thing that an agent does; what does not fit the tree is done as far as it fits."""

    verb: str
    path: bytes
    other: bytes
    content: bytes
    mode: int


EDITS = st.builds(
    Edit,
    verb=st.sampled_from(
        ["write", "write", "append", "delete", "rename", "mode", "link", "directory", "fifo"]
    ),
    path=PATHS,
    other=PATHS,
    content=CONTENTS,
    mode=st.sampled_from([0o644, 0o755, 0o600, 0o444, 0o500]),
)
TREES = st.lists(EDITS.filter(lambda edit: edit.verb in {"write", "link"}), max_size=8)
IGNORES = st.sampled_from([b"", b"*.o\n", b"a/\n", b"/b\n!c.txt\n"])


def clear(path: bytes) -> None:
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def make_room(root: bytes, path: bytes) -> bytes:
    """Turns whatever stands in the way of a path into directories; gives the whole path."""
    place = root
    for part in path.split(b"/")[:-1]:
        place = os.path.join(place, part)
        if os.path.islink(place) or not os.path.isdir(place):
            clear(place)
            os.mkdir(place)
    return os.path.join(root, path)


def put(path: bytes, content: bytes, mode: int) -> None:
    clear(path)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)


def edit(root: Path, what: Edit) -> None:
    top = os.fsencode(root)
    path = make_room(top, what.path)
    regular = os.path.isfile(path) and not os.path.islink(path)
    match what.verb:
        case "write":
            put(path, what.content, what.mode)
        case "append" if regular:
            with open(path, "ab") as file:
                file.write(what.content)
        case "delete":
            clear(path)
        case "rename" if os.path.lexists(path) and not what.other.startswith(what.path):
            target = make_room(top, what.other)
            if os.path.lexists(path):
                clear(target)
                os.rename(path, target)
        case "mode" if regular or (os.path.isdir(path) and not os.path.islink(path)):
            os.chmod(path, what.mode | 0o700 if os.path.isdir(path) else what.mode)
        case "link":
            clear(path)
            os.symlink(what.other, path)
        case "directory":
            clear(path)
            os.mkdir(path)
        case "fifo":
            clear(path)
            os.mkfifo(path)


def base_repository(place: Path, tree: list[Edit], ignore: bytes) -> Path:
    origin = place / "origin"
    git(place, "init", "-q", str(origin))
    for what in tree:
        edit(origin, what)
    (origin / ".gitignore").write_bytes(ignore)
    git(origin, "add", "-A", "-f")
    git(origin, "commit", "-q", "--allow-empty", "-m", "base")
    return origin


@RUNS
@given(TREES, IGNORES, st.lists(EDITS, max_size=10), st.lists(EDITS, max_size=5))
def test_a_patch_gives_the_very_tree_in_a_checkout_of_the_base(
    tree: list[Edit], ignore: bytes, first: list[Edit], second: list[Edit]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        origin = base_repository(place, tree, ignore)
        workspace = Workspace(WorkspacePaths(place / "job"))
        workspace.prepare(Source("git", origin))
        assert workspace.base.visible == git(origin, "rev-parse", "HEAD^{tree}")
        git(place, "clone", "-q", str(origin), "steps")
        git(place, "clone", "-q", str(origin), "whole")
        for step, edits in enumerate((first, second)):
            before = workspace.begin(str(step), 1)
            for what in edits:
                edit(workspace.paths.work, what)
            change = workspace.end(before)
            assert change.changed == bool(change.patch)
            if change.changed:
                git(place / "steps", "apply", "-", stdin=change.patch)
                git(place / "steps", "add", "-A", "-f")
            assert git(place / "steps", "write-tree") == change.after.visible
        patch = workspace.job_change().patch
        if patch:
            git(place / "whole", "apply", "-", stdin=patch)
            git(place / "whole", "add", "-A", "-f")
        assert git(place / "whole", "write-tree") == change.after.visible


@RUNS
@given(TREES, IGNORES, st.lists(EDITS, max_size=8), st.lists(EDITS, min_size=1, max_size=8))
def test_a_second_attempt_finds_the_very_state(
    tree: list[Edit], ignore: bytes, before_step: list[Edit], attempt: list[Edit]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        source = place / "source"
        source.mkdir()
        (source / ".gitignore").write_bytes(ignore)
        for what in tree:
            edit(source, what)
        workspace = Workspace(WorkspacePaths(place / "job"))
        workspace.prepare(Source("copy", source))
        work = workspace.paths.work
        for what in before_step:
            edit(work, what)
        before = workspace.begin("s", 1)
        found = state(work)
        for looked_at in (False, True):
            for what in attempt:
                edit(work, what)
            if looked_at:
                workspace.end(before)
            assert workspace.begin("s", 1) == before
            assert state(work) == found
        assert not workspace.end(before).changed


@given(st.binary(min_size=1, max_size=12), st.booleans())
def test_only_names_like_git_are_opaque(name: bytes, link: bool) -> None:  # noqa: FBT001
    if is_opaque(name, stat.S_IFLNK if link else stat.S_IFREG):
        assert name[:1] in b".gG"
