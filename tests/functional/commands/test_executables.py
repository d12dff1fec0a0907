"""bin/, pyproject.toml, the modules and `agentorch` know the same commands, by the same words."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from agentorch import __version__
from agentorch.commands import ALIASES, COMMANDS, module_of

ROOT = Path(__file__).parents[3]
STUBS = sorted((ROOT / "bin").iterdir())
EXECUTABLES = {"agentorch": "main", **{f"agentorch-{name}": module_of(name) for name in COMMANDS}}


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "lib")}
    return subprocess.run(
        [sys.executable, *argv], env=environment, text=True, capture_output=True, check=False
    )


def test_a_stub_for_every_command_and_no_other() -> None:
    assert {path.name for path in STUBS} == set(EXECUTABLES)


@pytest.mark.parametrize("path", STUBS, ids=lambda path: path.name)
def test_a_stub_is_three_lines(path: Path) -> None:
    module = f"agentorch.commands.{EXECUTABLES[path.name]}"
    stub = f"#!/usr/bin/env python3\nfrom {module} import main\nmain()\n"
    assert path.read_text("utf-8") == stub
    assert os.access(path, os.X_OK)


def test_pip_installs_the_same_commands() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {
        name: f"agentorch.commands.{module}:main" for name, module in EXECUTABLES.items()
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_a_module_begins_with_the_words_of_the_table(name: str) -> None:
    source = ROOT / "lib/agentorch/commands" / f"{module_of(name)}.py"
    docstring = ast.get_docstring(ast.parse(source.read_text("utf-8"))) or ""
    title, _, words = docstring.partition("\n")[0].partition(": ")
    assert title.startswith(f"agentorch-{name}")
    assert words == f"{COMMANDS[name]}."


def test_help_lists_every_command_and_imports_none() -> None:
    code = (
        "import sys\n"
        "from agentorch.commands.main import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(*(name for name in sys.modules if name.startswith('agentorch.')))\n"
    )
    shown = run("-c", code).stdout.splitlines()
    rows = [line.split(maxsplit=1) for line in shown[shown.index("Commands:") + 1 : -1]]
    assert {row[0]: row[1] for row in rows} == COMMANDS
    assert shown[-1].split() == ["agentorch.commands", "agentorch.commands.main"]


@pytest.mark.parametrize("path", STUBS, ids=lambda path: path.name)
def test_every_executable_tells_its_version(path: Path) -> None:
    done = run(path, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("name", [*COMMANDS, *ALIASES])
def test_every_command_is_a_word_of_agentorch(name: str) -> None:
    module = ALIASES.get(name, name)
    whole = run(ROOT / "bin/agentorch", name, "--help").stdout.replace(f"agentorch {name}", "X")
    alone = run(ROOT / f"bin/agentorch-{module}", "--help").stdout
    assert whole == alone.replace(f"agentorch-{module}", "X")


def test_a_misspelled_command_is_refused_with_the_near_one() -> None:
    done = run(ROOT / "bin/agentorch", "statu", "x")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "'statu' (did you mean 'status'?)" in done.stderr
