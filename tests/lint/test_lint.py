"""The linters, as tests: a finding reads like a failure."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentorch.redaction.redactor import Redactor

ROOT = Path(__file__).parents[2]
PLACES = (".ci", "bin", "contracts", "examples", "lib", "man", "packaging", "tests", "units")
PYTHON = ("lib", "tests")

REFUSED = {"task", "worker", "manager", "handler", "helper", "utils", "util"}
MOST_LINES = 500

# Names that are somebody else's, and whose.
NOT_OURS = {
    "settings.py: worker_entrypoint_group": "WORKER_ENTRYPOINT_GROUP of CONTRACT.md",
    "prompt.py: task": "what the prompt says below its heading of this name",
    "systemd_run.py: _manager": "systemd's",
    "systemd_run.py: MANAGER_VARIABLES": "systemd's",
    "resources.py: tasks_max": "systemd's",
    "connection.py: error_task_class": "waitress's",
    "connection.py: RefusalTask": "waitress's",
    "generator.py: _user_manager": "systemd's",
    "login.py: users_with_manager": "systemd's",
}


def sources() -> Iterator[Path]:
    """Every file that belongs to the project."""
    for place in PLACES:
        for path in (ROOT / place).rglob("*"):
            if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
                yield path


def is_shell(path: Path) -> bool:
    with path.open("rb") as file:
        return (
            re.match(rb"#!\s*(?:/usr)?/bin/(?:env )?(?:ba|da)?sh\b", file.readline(100)) is not None
        )


def tool(name: str) -> str:
    """The path of a linter: of this environment, or the system's."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} not installed: make lint, or apt install {name}")
    return found


def accepted(*argv: str | Path) -> None:
    done = subprocess.run(argv, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_check() -> None:
    accepted(tool("ruff"), "check", "--quiet", *PYTHON)


def test_ruff_format() -> None:
    accepted(tool("ruff"), "format", "--check", *PYTHON)


def test_mypy() -> None:
    accepted(tool("mypy"), "--strict", *PYTHON)


def test_shellcheck() -> None:
    scripts = [path for path in sources() if is_shell(path)]
    assert scripts
    accepted(tool("shellcheck"), "--external-sources", *scripts)


def test_codespell() -> None:
    accepted(tool("codespell"), *(place for place in PLACES if (ROOT / place).exists()))


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name that a file makes: of a class, function, argument, variable or attribute."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name


def words(identifier: str) -> set[str]:
    """The words of a name, in lower case and singular."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", identifier)
    found = {word.lower() for word in spaced.split("_")}
    return found | {word.removesuffix("s") for word in found}


def test_words_that_are_not_used_for_anything_of_ours() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / "lib").rglob("*.py"))
        for line, name in [
            (1, path.stem),
            *identifiers(ast.parse(path.read_text("utf-8"))),
        ]
        if words(name) & REFUSED and f"{path.name}: {name}" not in NOT_OURS
    ]
    assert wrong == []


def test_files_stay_small() -> None:
    """350 lines are much for one thing; a table may be longer where it is one."""
    long = {
        str(path.relative_to(ROOT)): count
        for path in (ROOT / "lib").rglob("*.py")
        if (count := len(path.read_text("utf-8").splitlines())) > MOST_LINES
    }
    assert long == {}


def test_layers() -> None:
    """The contracts of pyproject.toml: imports go down, and what is pure touches nothing."""
    accepted(tool("lint-imports"), "--no-cache")


def test_no_module_at_the_top() -> None:
    top = sorted(path.name for path in (ROOT / "lib/agentorch").glob("*.py"))
    assert top == ["__init__.py"]


def test_no_module_is_named_as_one_of_the_standard_library() -> None:
    """With its folder as the working directory, Python would import ours for its own."""
    found = {
        str(path.relative_to(ROOT / "lib/agentorch"))
        for path in (ROOT / "lib/agentorch").rglob("*.py")
        if path.stem in sys.stdlib_module_names
    }
    assert found == {"commands/gc.py"}, "that one is named for its executable, agentorch-gc"


def test_every_package_says_what_it_owns() -> None:
    """In 3 to 12 lines: what it owns, its invariant, where to start reading."""
    wrong = {
        path.parent.name: count
        for path in (ROOT / "lib/agentorch").glob("*/__init__.py")
        if path.parent.name != "commands"
        and not 3 <= (count := len((docstring(path) or "").splitlines())) <= 12
    }
    assert wrong == {}


# Files whose documents have classes, and where these are.
DOCUMENTS = ("result", "state")
THEIR_READERS = {
    "artifacts/directory.py",
    "artifacts/manifest.py",
    "jobqueue/lookup.py",
}  # the last passes one on


def test_results_and_states_are_read_by_their_classes_alone() -> None:
    """No other module opens result.json or state.json as a document, to look for its keys."""
    readers = {"read_json", "read_document", "read_cache"}
    found = {
        f"{path.relative_to(ROOT / 'lib/agentorch')}:{node.lineno}"
        for path in (ROOT / "lib/agentorch").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in readers
        and node.args
        and isinstance(node.args[0], ast.Attribute)
        and node.args[0].attr in DOCUMENTS
    }
    assert {place for place in found if place.split(":")[0] not in THEIR_READERS} == set()


def docstring(path: Path) -> str | None:
    return ast.get_docstring(ast.parse(path.read_text("utf-8")))


def test_every_package_of_ours_is_one_for_pip() -> None:
    """setuptools installs only directories that say they are packages."""
    directories = {path.parent for path in (ROOT / "lib/agentorch").rglob("*.py")}
    assert [path for path in directories if not (path / "__init__.py").exists()] == []


def test_no_file_holds_what_looks_like_a_secret() -> None:
    """Scanners of other people find what ours finds; tests put their keys together."""
    found = {
        str(path.relative_to(ROOT)): [finding.kind for finding in findings]
        for path in sources()
        if (findings := Redactor().find(path.read_text("utf-8", "replace")))
    }
    assert found == {}


def test_the_promises_name_tests_that_are_there() -> None:
    text = (ROOT / "tests/README.md").read_text("utf-8")
    named = re.findall(r"`([a-z_/]+\.py)`", text)
    assert named
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []
