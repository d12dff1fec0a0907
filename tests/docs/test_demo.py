"""The demos as a newcomer runs them: they work, clean up, and say what is missing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import clis

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples/demo/run"
AGENTS = ROOT / "examples/demo/agents"
NEED = ROOT / "packaging/need"
TIMEOUT_S = 300


def environment(top: Path, **variables: str) -> dict[str, str]:
    """No HOME, and the programs of this checkout."""
    path = f"{ROOT / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": str(ROOT / "lib"), "TMPDIR": str(top), **variables}


def demo(
    top: Path, *arguments: str, program: Path = DEMO, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments],
        cwd=top,
        env=environment(top, **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def processes_that_name(place: Path) -> list[str]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes() + (directory / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended, or it is somebody else's
        if os.fsencode(place) in words and int(directory.name) != os.getpid():
            found.append(directory.name)
    return found


def test_the_demo_works_and_leaves_nothing(tmp_path: Path) -> None:
    # places of the user's own agentorch, which are none of the demo's business
    done = demo(tmp_path, QUEUE_ROOT=str(tmp_path / "mine"), GIT_DIR="/nonexistent")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    failed, passed = done.stdout.index("FAILED (failures=1)"), done.stdout.rindex("\nOK\n")
    assert failed < done.stdout.index("success: done (queue=done)", failed) < passed
    assert done.stdout.endswith("All of this was as it should be.\n\n")
    assert list(tmp_path.iterdir()) == []
    assert processes_that_name(tmp_path) == []


def test_what_is_kept_is_where_it_says(tmp_path: Path) -> None:
    done = demo(tmp_path, "--keep")
    kept = re.search(r"Everything is kept in (.*)\n", done.stdout)
    assert kept is not None, done.stdout + done.stderr
    assert len(list(Path(kept[1]).glob("state/queue/done/*.json"))) == 2


@pytest.mark.parametrize("odd", ["/nonexistent", "with blank; and more"])
def test_an_odd_place_for_temporary_files(tmp_path: Path, odd: str) -> None:
    (tmp_path / "with blank; and more").mkdir()
    done = demo(tmp_path, TMPDIR=odd)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "with blank; and more").iterdir()) == []


def test_an_interrupted_demo_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [DEMO], env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if b"claimed" in line:
                break
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []
    assert processes_that_name(tmp_path) == []


@pytest.mark.parametrize("name", ["run", "agents"])
def test_no_commands_no_demo(tmp_path: Path, name: str) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "examples", copy / "examples")
    shutil.copytree(ROOT / "packaging", copy / "packaging")
    done = subprocess.run(
        [copy / "examples/demo" / name],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"agentorch-submit is not there: run make venv in {copy}\n"
    assert list(tmp_path.iterdir()) == [copy]


@pytest.mark.parametrize("program", [DEMO, AGENTS], ids=lambda path: path.name)
def test_a_wrong_option(tmp_path: Path, program: Path) -> None:
    done = demo(tmp_path, "--kepp", program=program)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"usage: {program.name} [--keep]\n"


# ---- the demo of the agents -------------------------------------------------------------------


@pytest.fixture(scope="module")
def _installed() -> None:
    """The CLIs are there: npm may take minutes."""
    if why := clis.missing():
        pytest.skip(why)
    clis.programs()


@pytest.mark.exhaustive
@pytest.mark.usefixtures("_installed")
@pytest.mark.needs("bwrap", "git", "rg")
def test_the_agents_demo_works_and_leaves_nothing(tmp_path: Path) -> None:
    # what the user's own agentorch is told is none of the demo's business
    mine = {"AGENT_MODELS": "codex=mine", "AGENTORCH_CONFIG_DIR": "/nonexistent"}
    done = demo(tmp_path, program=AGENTS, **mine)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    places = [done.stdout.index(words) for words in AGENTS_SAY]
    assert places == sorted(places)
    assert done.stdout.endswith("All of this was as it should be.\n\n")
    assert list(tmp_path.iterdir()) == []
    assert processes_that_name(tmp_path) == []


AGENTS_SAY = (
    "agent claude in the sandbox: edits a file with its shell",
    "01_plan: ended: success: ",
    "02_implement: ended: success: ",
    "03_review: ended: success: ",
    "approved: an even count gives the mean of the middle two",
    "02_implement  codex     gpt-5.5               200 tokens in    40 out $0.0018",
    "+    return (ordered[middle] + ordered[~middle]) / 2",
    "\nOK\n",
)


# ---- packaging/need ---------------------------------------------------------------------------


def need(*pairs: str, programs: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [NEED, *pairs],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH without apt-get, and with somebody's id."""
    directory = tmp_path / "bin"
    directory.mkdir()
    python = shutil.which("python3", path="/usr/bin") or sys.executable
    for name, path in {"sh": "/bin/sh", "python3": python}.items():
        (directory / name).symlink_to(path)
    (directory / "id").write_text("#!/bin/sh\necho 1000\n")
    (directory / "id").chmod(0o755)
    return directory


def test_nothing_is_missing(programs: Path) -> None:
    done = need("dash:sh", "python3:module=json", programs=programs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_missing_is_told_at_once(programs: Path) -> None:
    done = need("bubblewrap:bwrap", "dash:sh", "x:module=nonesuch", programs=programs)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "not installed: bubblewrap x\non Debian or Ubuntu: sudo apt-get install bubblewrap x\n"
    )
